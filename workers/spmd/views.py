"""Compute MindSpore's view operators as copies: a view of a slice may outlive the slice.

Outside of MindSpore's own graphs some of them also yield wrong elements (ChunkView of 2.10.0).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np

from workers.tensors import to_tensor


def _cut(x: np.ndarray, sizes: Any, dim: int) -> tuple[np.ndarray, ...]:
    return tuple(np.split(x, np.cumsum(sizes)[:-1], dim))


def _in_parts_of(x: np.ndarray, size: int, dim: int) -> tuple[np.ndarray, ...]:
    return tuple(np.split(x, range(size, x.shape[dim], size), dim))


def _taken(x: np.ndarray, dim: int, places: slice) -> tuple[np.ndarray, ...]:
    index = [slice(None)] * x.ndim
    index[dim] = places
    return (x[tuple(index)],)


_VIEWS: Mapping[str, Callable[..., tuple[np.ndarray, ...]]] = {
    "BroadcastToView": lambda x, shape: (np.broadcast_to(x, shape),),
    "ChunkView": lambda x, count, dim=0: _in_parts_of(x, -(-x.shape[dim] // count), dim),
    "ExpandDimsView": lambda x, dim: (np.expand_dims(x, dim),),
    "Narrow": lambda x, dim, start, size: _taken(x, dim, slice(start, start + size)),
    "NarrowView": lambda x, dim, start, size: _taken(x, dim, slice(start, start + size)),
    "SelectExtView": lambda x, dim, index: (np.take(x, index, dim),),
    "SliceExtView": lambda x, dim, start, end, step: _taken(x, dim, slice(start, end, step)),
    "SplitTensorView": lambda x, size, dim=0: _in_parts_of(x, size, dim),
    "SplitWithSizeView": lambda x, sizes, dim=0: _cut(x, sizes, dim),
    "TExt": lambda x: (np.transpose(x),),
    "TransposeExtView": lambda x, first, second: (np.swapaxes(x, first, second),),
    "TransposeView": lambda x, order: (np.transpose(x, order),),
    "UnstackExtView": lambda x, dim=0: tuple(np.moveaxis(x, dim, 0)),
    "View": lambda x, shape: (np.reshape(x, shape),),
}


def view(op: str) -> Callable[..., tuple[Any, ...]] | None:
    """Return what computes a view operator on tensors; None for any other operator."""
    cut = _VIEWS.get(op)
    if cut is None:
        return None

    def run(x: Any, *arguments: Any) -> tuple[Any, ...]:
        return tuple(to_tensor(np.array(part)) for part in cut(x.asnumpy(), *arguments))

    return run
