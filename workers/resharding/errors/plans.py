"""Name why the slices that are wanted cannot be made from those that were saved."""

from __future__ import annotations

from workers.resharding.errors.base import ReshardError, listed


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
            f"{are} not in the checkpoint ({self.path}): {listed(self.names)}{hint};"
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
        layout: str,  # empty: there is no strategy, and the files hold whole tensors
    ) -> None:
        super().__init__(parameter, wanted, saved, slice_shape, path, layout)
        self.parameter, self.wanted, self.saved = parameter, wanted, saved
        self.slice_shape, self.path, self.layout = slice_shape, path, layout

    def __str__(self) -> str:
        if not self.layout:
            return (
                f"{self.parameter}: the network wants shape {list(self.wanted)}, {self.path} holds"
                f" {list(self.saved)}; make the network as the one that was saved, or if these are"
                " slices, name their strategy"
            )
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
