"""Name why the files of several ranks do not make a checkpoint together."""

from __future__ import annotations

from workers.resharding.errors.base import ReshardError, listed


class MissingRankError(ReshardError):
    """Ranks have no checkpoint file."""

    def __init__(self, pattern: str, ranks: tuple[int, ...], rank_count: int | None) -> None:
        super().__init__(pattern, ranks, rank_count)
        self.pattern, self.ranks, self.rank_count = pattern, ranks, rank_count

    def __str__(self) -> str:
        is_one = "{rank}" not in self.pattern
        if self.rank_count is None or is_one and 0 in self.ranks:
            return f"no checkpoint file: nothing matches {self.looked_for}"
        if is_one:
            return (
                f"{self.pattern}: this is one file, but the strategy is for {self.rank_count}"
                " ranks; write {rank} where the paths of the ranks differ, or leave out the"
                " strategy if the file holds whole tensors"
            )
        return (
            f"no checkpoint file of rank {listed(self.ranks)}: nothing matches"
            f" {self.looked_for}; the strategy is for {self.rank_count} ranks"
        )

    @property
    def looked_for(self) -> str:
        return self.pattern.replace("{rank}", str(self.ranks[0]))


class NoCheckpointError(ReshardError):
    """A folder holds no checkpoint."""

    def __init__(self, path: str) -> None:
        super().__init__(path)
        self.path = path

    def __str__(self) -> str:
        return (
            f"{self.path}: this folder holds no checkpoint: no *.ckpt, no *.safetensors, and no"
            " such files in rank_0, rank_0_ckpt or device0/rank_0_ckpt; name the folder that does,"
            " a file, or a pattern with {rank}"
        )


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


class SharedFileError(ReshardError):
    """One file stands for two ranks whose slices differ."""

    def __init__(self, parameter: str, first: int, path: str, second: int, other: str) -> None:
        super().__init__(parameter, first, path, second, other)
        self.parameter, self.first, self.path = parameter, first, path
        self.second, self.other = second, other

    def __str__(self) -> str:
        return (
            f"ranks {self.first} and {self.second} hold different slices of {self.parameter}, but"
            f" {self.path} and {self.other} have the same content; is one a copy of the other,"
            " or a link to it?"
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


class MissingPartError(ReshardError):
    """Files share whole tensors, and one of the files is not there."""

    def __init__(self, parameter: str, part: str, path: str) -> None:
        super().__init__(parameter, part, path)
        self.parameter, self.part, self.path = parameter, part, path

    def __str__(self) -> str:
        return (
            f"{self.path}: {self.parameter} is in {self.part}, it says, but no file in the folder"
            " holds it; was the folder copied as a whole?"
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
