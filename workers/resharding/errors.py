"""Name what can be wrong with a checkpoint, its strategy, or what is wanted of them.

Every error says where, what and what to try, keeps its parts as attributes, and travels
between processes. All of them are found before any tensor is copied.
"""

from __future__ import annotations

from collections.abc import Sequence


class ReshardError(Exception):
    """The wanted slices cannot be made from what was saved. ``exit_code`` is for a process."""

    exit_code = 2


def _listed(things: Sequence[object], most: int = 8) -> str:
    more = f" and {len(things) - most} more" if len(things) > most else ""
    return ", ".join(map(str, things[:most])) + more


class LayoutError(ReshardError):
    """A layout contradicts itself or the tensor that it is meant for."""

    def __init__(self, reason: str, layout: str, parameter: str = "") -> None:
        super().__init__(reason, layout, parameter)
        self.reason, self.layout, self.parameter = reason, layout, parameter

    def of(self, parameter: str) -> LayoutError:
        """Return the same error with the name of the parameter."""
        return LayoutError(self.reason, self.layout, parameter)

    def __str__(self) -> str:
        where = f"{self.parameter}: " if self.parameter else ""
        return f"{where}the layout ({self.layout}) does not fit: {self.reason}"


class OverlapError(ReshardError):
    """Two ranks saved boxes that overlap without being equal."""

    def __init__(self, parameter: str, first: int, second: int, boxes: str) -> None:
        super().__init__(parameter, first, second, boxes)
        self.parameter, self.first, self.second, self.boxes = parameter, first, second, boxes

    def __str__(self) -> str:
        return (
            f"{self.parameter}: the slices of ranks {self.first} and {self.second} overlap"
            f" ({self.boxes}); do all files belong to the same strategy?"
        )


class CoverageError(ReshardError):
    """Saved slices leave part of the wanted slice unfilled."""

    def __init__(self, parameter: str, wanted: int, found: int) -> None:
        super().__init__(parameter, wanted, found)
        self.parameter, self.wanted, self.found = parameter, wanted, found

    def __str__(self) -> str:
        return (
            f"{self.parameter}: saved slices cover {self.found} of {self.wanted} elements;"
            " is a rank's checkpoint file missing from the list?"
        )


class StrategyFileError(ReshardError):
    """A strategy file, or a folder of them, cannot be used."""

    def __init__(self, path: str, reason: str) -> None:
        super().__init__(path, reason)
        self.path, self.reason = path, reason

    def __str__(self) -> str:
        return f"strategy {self.path}: {self.reason}"


class UnreadableFileError(ReshardError):
    """The system does not let a file be read."""

    def __init__(self, path: str, reason: str) -> None:
        super().__init__(path, reason)
        self.path, self.reason = path, reason

    def __str__(self) -> str:
        return f"{self.path}: cannot be read: {self.reason}"


class CheckpointFormatError(ReshardError):
    """A checkpoint file is torn, or is none."""

    def __init__(self, path: str, offset: int, reason: str) -> None:
        super().__init__(path, offset, reason)
        self.path, self.offset, self.reason = path, offset, reason

    def __str__(self) -> str:
        return (
            f"{self.path}: {self.reason} (byte {self.offset}); if the file is a checkpoint, it was"
            " not written or copied to its end: copy it again, or take an earlier step"
        )


class EncryptedCheckpointError(ReshardError):
    """A checkpoint file is encrypted, and there is no key."""

    def __init__(self, path: str, cipher: str) -> None:
        super().__init__(path, cipher)
        self.path, self.cipher = path, cipher

    def __str__(self) -> str:
        return (
            f"{self.path}: the file is encrypted ({self.cipher}); give its key with --key-file"
            " FILE, or in hexadecimal in the environment variable LAUNCHER_CHECKPOINT_KEY"
        )


class DecryptionError(ReshardError):
    """A key cannot be used, or an encrypted file cannot be opened with it."""

    def __init__(self, path: str, reason: str) -> None:
        super().__init__(path, reason)
        self.path, self.reason = path, reason

    def __str__(self) -> str:
        return f"{self.path}: {self.reason}; give the key that was enc_key when the file was saved"


class MissingRankError(ReshardError):
    """Ranks have no checkpoint file."""

    def __init__(self, pattern: str, ranks: tuple[int, ...], rank_count: int | None) -> None:
        super().__init__(pattern, ranks, rank_count)
        self.pattern, self.ranks, self.rank_count = pattern, ranks, rank_count

    def __str__(self) -> str:
        if self.rank_count is None:
            return f"no checkpoint file: nothing matches {self.looked_for}"
        if "{rank}" not in self.pattern:
            return (
                f"{self.pattern}: this is one file, but the strategy is for {self.rank_count}"
                " ranks; write {rank} where the paths of the ranks differ, or leave out the"
                " strategy if the file holds whole tensors"
            )
        return (
            f"no checkpoint file of rank {_listed(self.ranks)}: nothing matches"
            f" {self.looked_for}; the strategy is for {self.rank_count} ranks"
        )

    @property
    def looked_for(self) -> str:
        return self.pattern.replace("{rank}", str(self.ranks[0]))


class RankCountError(ReshardError):
    """There are checkpoint files of more ranks than the strategy knows."""

    def __init__(self, path: str, rank_count: int) -> None:
        super().__init__(path, rank_count)
        self.path, self.rank_count = path, rank_count

    def __str__(self) -> str:
        return (
            f"the strategy is for {self.rank_count} ranks, but there is {self.path}, too; give the"
            " strategy that this checkpoint was saved with, with all its pipeline stages"
        )


class SeveralFilesError(ReshardError):
    """A pattern matches several files of one rank."""

    def __init__(self, pattern: str, rank: int, paths: tuple[str, ...]) -> None:
        super().__init__(pattern, rank, paths)
        self.pattern, self.rank, self.paths = pattern, rank, paths

    def __str__(self) -> str:
        listed = "".join(f"\n  {path}" for path in self.paths)
        return (
            f"{self.pattern}: rank {self.rank} has {len(self.paths)} files; name one step in the"
            f" pattern:{listed}"
        )


class RankOrderError(ReshardError):
    """The file of one rank has the number of another in its name."""

    def __init__(self, path: str, rank: int, named: int) -> None:
        super().__init__(path, rank, named)
        self.path, self.rank, self.named = path, rank, named

    def __str__(self) -> str:
        return (
            f"{self.path}: taken for rank {self.rank}, but its name says rank {self.named}; are the"
            " files in the wrong folders, or {rank} in the wrong place of the pattern?"
        )


class StepMismatchError(ReshardError):
    """Ranks saved at different steps."""

    def __init__(self, first: str, second: str) -> None:
        super().__init__(first, second)
        self.first, self.second = first, second

    def __str__(self) -> str:
        return (
            f"{self.first} and {self.second} are of different steps; take a step that every rank"
            " has saved"
        )


class SharedFileError(ReshardError):
    """One file stands for two ranks whose slices differ."""

    def __init__(self, parameter: str, first: int, path: str, second: int, other: str) -> None:
        super().__init__(parameter, first, path, second, other)
        self.parameter, self.first, self.path = parameter, first, path
        self.second, self.other = second, other

    def __str__(self) -> str:
        return (
            f"ranks {self.first} and {self.second} hold different slices of {self.parameter}, but"
            f" {self.path} and {self.other} are the same file; is one a wrong link?"
        )


class StrategyNeededError(ReshardError):
    """Files of several ranks cannot be understood without a strategy."""

    def __init__(self, pattern: str, reason: str) -> None:
        super().__init__(pattern, reason)
        self.pattern, self.reason = pattern, reason

    def __str__(self) -> str:
        return (
            f"{self.pattern}: the files of several ranks hold slices ({self.reason}); give the"
            " strategy file that was saved with them, or the one file that holds whole tensors"
        )


class IncompleteFileError(ReshardError):
    """A rank's file lacks a parameter that the other ranks saved."""

    def __init__(self, parameter: str, rank: int, path: str, other: str) -> None:
        super().__init__(parameter, rank, path, other)
        self.parameter, self.rank, self.path, self.other = parameter, rank, path, other

    def __str__(self) -> str:
        return (
            f"{self.path}: the file of rank {self.rank} lacks {self.parameter}, which {self.other}"
            " has; was it written or copied to its end?"
        )


class MisplacedParameterError(ReshardError):
    """A parameter was saved by ranks that hold nothing of it, says the strategy."""

    def __init__(self, parameter: str, path: str, ranks: tuple[int, ...]) -> None:
        super().__init__(parameter, path, ranks)
        self.parameter, self.path, self.ranks = parameter, path, ranks

    def __str__(self) -> str:
        return (
            f"{self.path} holds {self.parameter}, but by the strategy only ranks {self.ranks[0]} to"
            f" {self.ranks[-1]} do; are the files of the pipeline stages in the wrong order?"
        )


class SliceMismatchError(ReshardError):
    """The slices that two ranks saved of a parameter do not fit together."""

    def __init__(self, parameter: str, path: str, found: str, other: str, expected: str) -> None:
        super().__init__(parameter, path, found, other, expected)
        self.parameter, self.path, self.found = parameter, path, found
        self.other, self.expected = other, expected

    def __str__(self) -> str:
        return (
            f"{self.parameter}: {self.path} holds {self.found}, but {self.other} holds"
            f" {self.expected}; are the files of one run, and is the parameter in the strategy?"
        )


class MissingParametersError(ReshardError):
    """Parameters are wanted that the checkpoint lacks."""

    def __init__(self, names: tuple[str, ...], path: str, similar: tuple[str, ...]) -> None:
        super().__init__(names, path, similar)
        self.names, self.path, self.similar = names, path, similar

    def __str__(self) -> str:
        hint = f" (it has {', '.join(self.similar)}: do the names differ?)" if self.similar else ""
        count = len(self.names)
        are = f"{count} wanted parameters are" if count > 1 else "a wanted parameter is"
        return (
            f"{are} not in the checkpoint ({self.path}): {_listed(self.names)}{hint};"
            f" to go on without, --allow-missing '{self.names[0]}', or a pattern like 'head.*'"
        )


class NoLayoutError(ReshardError):
    """The strategy does not say how ranks divide a parameter, and the files hold slices of it."""

    def __init__(self, parameter: str, path: str, found: str, similar: tuple[str, ...]) -> None:
        super().__init__(parameter, path, found, similar)
        self.parameter, self.path, self.found, self.similar = parameter, path, found, similar

    def __str__(self) -> str:
        names = ", ".join(self.similar)
        hint = f"it has {names}, which no file has: do the names differ?" if names else ""
        return (
            f"{self.parameter}: the strategy has no entry for it, so that every file should hold it"
            f" whole, but {self.path} holds {self.found};"
            f" {hint or 'give the strategy that was saved with this checkpoint'}"
        )


class ShapeMismatchError(ReshardError):
    """The saved slices make a tensor of another shape than the network wants."""

    def __init__(
        self,
        parameter: str,
        wanted: tuple[int, ...],
        saved: tuple[int, ...],
        slice_shape: tuple[int, ...],
        path: str,
        layout: str,
    ) -> None:
        super().__init__(parameter, wanted, saved, slice_shape, path, layout)
        self.parameter, self.wanted, self.saved = parameter, wanted, saved
        self.slice_shape, self.path, self.layout = slice_shape, path, layout

    def __str__(self) -> str:
        if self.slice_shape == self.wanted:
            advice = "the file holds the whole tensor: give one such file, without a strategy"
        else:
            advice = "is the strategy the one that this checkpoint was saved with?"
        return (
            f"{self.parameter}: the network wants shape {list(self.wanted)}, but the slices in"
            f" {self.path} have shape {list(self.slice_shape)} and make {list(self.saved)} by the"
            f" strategy ({self.layout}); {advice}"
        )


class DtypeMismatchError(ReshardError):
    """The network wants another element type than was saved."""

    def __init__(self, parameter: str, wanted: str, saved: str, path: str) -> None:
        super().__init__(parameter, wanted, saved, path)
        self.parameter, self.wanted, self.saved, self.path = parameter, wanted, saved, path

    def __str__(self) -> str:
        if self.wanted == self.saved:
            return f"{self.parameter}: elements of {self.saved} ({self.path}) are not supported"
        return (
            f"{self.parameter}: the network wants {self.wanted}, but {self.path} holds"
            f" {self.saved}; make the network with the type that was saved, and cast it afterwards"
        )


class CounterMismatchError(ReshardError):
    """Ranks counted to different steps."""

    def __init__(self, counter: str, first: str, value: int, second: str, other: int) -> None:
        super().__init__(counter, first, value, second, other)
        self.counter, self.first, self.value = counter, first, value
        self.second, self.other = second, other

    def __str__(self) -> str:
        return (
            f"{self.first} and {self.second} are of different steps: {self.counter} is"
            f" {self.value} in the one and {self.other} in the other; take files of one step"
        )


class ChecksumError(ReshardError):
    """The content of a checkpoint file is not what its checksum says."""

    def __init__(self, path: str, expected: int, found: int) -> None:
        super().__init__(path, expected, found)
        self.path, self.expected, self.found = path, expected, found

    def __str__(self) -> str:
        return (
            f"{self.path}: the content has the CRC-32 {self.found:08x}, the file says"
            f" {self.expected:08x}; it was damaged after it was saved: copy it again"
        )


class ReplicaMismatchError(ReshardError):
    """Two ranks that hold the same slice hold different bytes."""

    def __init__(self, parameter: str, path: str, other: str, offset: int) -> None:
        super().__init__(parameter, path, other, offset)
        self.parameter, self.path, self.other, self.offset = parameter, path, other, offset

    def __str__(self) -> str:
        return (
            f"{self.parameter}: {self.path} and {self.other} should hold the same, but differ from"
            f" byte {self.offset} of the slice on; is one file damaged, of another step or run, or"
            " the strategy of another run?"
        )


class FileChangedError(ReshardError):
    """A checkpoint file was written, or removed, after its index was read."""

    def __init__(self, path: str) -> None:
        super().__init__(path)
        self.path = path

    def __str__(self) -> str:
        return f"{self.path} has changed since its index was read; wait until its writer is done"


class CheckpointChangedError(ReshardError):
    """A rank finds other files than those that were checked before it was started."""

    def __init__(self, pattern: str) -> None:
        super().__init__(pattern)
        self.pattern = pattern

    def __str__(self) -> str:
        return (
            f"{self.pattern}: the files are not those that were checked before the ranks started:"
            " a newer step was saved, they were written meanwhile, or this host has others; name"
            " one step in the pattern, or wait until the writer is done"
        )


class NoMemoryError(ReshardError):
    """The slices of a rank do not fit into the memory of its host."""

    def __init__(self, rank: int, needed: int, available: int) -> None:
        super().__init__(rank, needed, available)
        self.rank, self.needed, self.available = rank, needed, available

    def __str__(self) -> str:
        return (
            f"the slices of rank {self.rank} take {self.needed:,} bytes, {self.available:,} are"
            " available on its host; divide the network over more ranks or hosts"
        )


class TargetFolderError(ReshardError):
    """The folder that a conversion should make cannot be made."""

    def __init__(self, path: str, reason: str) -> None:
        super().__init__(path, reason)
        self.path, self.reason = path, reason

    def __str__(self) -> str:
        return f"{self.path}: {self.reason}"


class TargetWriteError(ReshardError):
    """The files of a conversion cannot be written; what was given is all right."""

    exit_code = 1

    def __init__(self, path: str, reason: str) -> None:
        super().__init__(path, reason)
        self.path, self.reason = path, reason

    def __str__(self) -> str:
        return f"{self.path}: {self.reason}; the same command, given again, goes on from there"
