"""Give dimensions their labels, for the rules. Pure tuples."""

from __future__ import annotations

from collections.abc import Collection, Iterable
from typing import Any

from workers.spmd.signature import Dims


def labels(prefix: str, count: int) -> tuple[str, ...]:
    """Return ``d0, d1, ...``"""
    return tuple(f"{prefix}{d}" for d in range(count))


def first(dims: Dims) -> str | None:
    """Return the label of dimension 0; None for a scalar."""
    return dims[0] if dims else None


def leading(dims: Dims, count: int) -> Dims:
    """Keep the first labels; what is reduced to size 1 behind them is never split."""
    return tuple(label if d < count else None for d, label in enumerate(dims))


def without(dims: Dims, names: Collection[str | None]) -> Dims:
    """Take labels away: these dimensions are whole."""
    return tuple(None if label in names else label for label in dims)


def as_tuple(axes: Any) -> tuple[int, ...]:
    """Return axes as operators take them (None, one, several) as a tuple."""
    if axes is None:
        return ()
    return (axes,) if isinstance(axes, int) else tuple(axes)


def chosen(dims: tuple[str, ...], axes: Iterable[int]) -> frozenset[str]:
    """Return the labels of some dimensions, which may count from the end."""
    return frozenset(dims[d % len(dims)] for d in axes) if dims else frozenset()


def aligned(shape: tuple[int, ...], output: tuple[int, ...], dims: Dims) -> Dims:
    """Label a shape that broadcasts to ``output``, from the right."""
    skipped = len(output) - len(shape)
    return tuple(
        None if size == 1 and output[skipped + d] != 1 else dims[skipped + d]
        for d, size in enumerate(shape)
    )
