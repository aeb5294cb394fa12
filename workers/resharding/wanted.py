"""Decide whether a checkpoint has what a network wants: its names, types and shapes."""

from __future__ import annotations

import difflib
import fnmatch
from collections.abc import Iterable
from typing import Protocol

from workers.resharding.dtypes import STORAGE
from workers.resharding.errors import (
    DtypeMismatchError,
    LayoutError,
    MissingParametersError,
    NoLayoutError,
    ShapeMismatchError,
)
from workers.resharding.layout import Layout
from workers.resharding.region import Region
from workers.resharding.saved import SlicedCheckpoint


class Wanted(Protocol):
    """What a network says of one of its parameters."""

    @property
    def layout(self) -> Layout: ...

    @property
    def full_shape(self) -> tuple[int, ...]: ...

    @property
    def dtype(self) -> str: ...  # MindSpore's name


def matches(name: str, patterns: Iterable[str]) -> bool:
    """Return whether one of some patterns (``head.*``) is for the name of a parameter."""
    return any(fnmatch.fnmatchcase(name, pattern) for pattern in patterns)


def refuse_missing(checkpoint: SlicedCheckpoint, names: Iterable[str]) -> None:
    """Refuse to go on if the checkpoint lacks one of some parameters.

    Raises:
        MissingParametersError: it names them all, and what comes near to the first.
    """
    missing = tuple(name for name in names if name not in checkpoint.parameters)
    if missing:
        similar = difflib.get_close_matches(missing[0], checkpoint.parameters)
        path = next(iter(checkpoint.files.values())).path
        raise MissingParametersError(missing, str(path), tuple(similar))


def require_layout(checkpoint: SlicedCheckpoint, name: str) -> None:
    """Refuse a parameter of which the files hold slices, and the strategy does not say which.

    Raises:
        NoLayoutError: it names what in the strategy comes near to it.
    """
    if name in checkpoint.unnamed_slices:
        first, *_, last = checkpoint.parameters[name].holders
        raise no_layout(checkpoint, name, f"other values than {checkpoint.files[last].path}")


def no_layout(checkpoint: SlicedCheckpoint, name: str, found: str) -> NoLayoutError:
    """Return the error that a strategy should name a parameter and does not."""
    file = checkpoint.files[checkpoint.parameters[name].holders[0]]
    similar = difflib.get_close_matches(name, checkpoint.named - checkpoint.parameters.keys())
    return NoLayoutError(name, str(file.path), found, tuple(similar))


def wanted_boxes(name: str, want: Wanted, rank: int) -> tuple[Region, ...]:
    """Return what a rank wants of a parameter.

    Raises:
        LayoutError: the layout does not fit the parameter, or the rank.
    """
    try:
        return want.layout.boxes(rank, want.full_shape)
    except LayoutError as error:
        raise error.of(name) from error


def check_same_tensor(checkpoint: SlicedCheckpoint, name: str, want: Wanted) -> None:
    """Refuse a parameter that is not the one that was saved.

    Raises:
        NoLayoutError: the strategy should name it, and does not.
        DtypeMismatchError, ShapeMismatchError: it has another type or shape.
    """
    saved = checkpoint.parameters[name]
    require_layout(checkpoint, name)
    file = checkpoint.files[saved.holders[0]]
    if saved.dtype != want.dtype or saved.dtype not in STORAGE:
        raise DtypeMismatchError(name, want.dtype, saved.dtype, str(file.path))
    if saved.full_shape != tuple(want.full_shape):
        if checkpoint.named and not saved.in_strategy:
            shapes = f"shape {list(saved.full_shape)}, not {list(want.full_shape)}"
            raise no_layout(checkpoint, name, shapes)
        raise ShapeMismatchError(
            name,
            tuple(want.full_shape),
            saved.full_shape,
            file.tensors[name].dims,
            str(file.path),
            str(saved.layout) if checkpoint.named else "",
        )
