"""Move and combine arrays between the ranks of a group. Every rank of the group must call."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np

from workers.resharding.plan import CopyStep
from workers.spmd.mesh import Mesh

_SPLIT_BYTES = 64 * 1024  # from here on every rank reduces a part, and the parts are gathered

_COMBINE: dict[str, Callable[..., np.ndarray]] = {
    "sum": np.add,
    "mean": np.add,  # divided by the size of the group at the end
    "max": np.maximum,
    "min": np.minimum,
}


def exchange(
    mesh: Mesh,
    group: tuple[int, ...],
    array: np.ndarray,
    copies: Sequence[CopyStep],
    out: np.ndarray,
    call: str,
) -> None:
    """Fill ``out`` from what the ranks of the group hold. Blocks until they have published it.

    Args:
        array: this rank's slice; the other ranks' have the same shape and dtype.
        copies: which boxes of whose slice go where in ``out``.
    """
    mesh.publish(array, group, call)
    for copy in copies:
        member = copy.source_rank
        source = array if member == mesh.rank else mesh.read(member, array, call)
        np.copyto(out[copy.target.as_slices()], source[copy.source.as_slices()])
    mesh.done(group, call)


def all_reduce(
    mesh: Mesh, group: tuple[int, ...], array: np.ndarray, how: str, call: str
) -> np.ndarray:
    """Combine the arrays of the group element by element; every rank gets the same bits.

    Each element is combined by one rank alone, or by all of them in the same order, the order
    of the group. Sums of 16-bit floats are made in float32.
    """
    flat = np.ascontiguousarray(array).reshape(-1)
    if array.nbytes < _SPLIT_BYTES:
        mesh.publish(flat, group, call)
        result = _combined(mesh, group, flat, slice(0, flat.size), how, call)
        mesh.done(group, call)
        return result.reshape(array.shape)
    bounds = [flat.size * i // len(group) for i in range(len(group) + 1)]
    longest = max(b - a for a, b in zip(bounds, bounds[1:], strict=False))
    own = group.index(mesh.rank)
    mesh.publish(flat, group, call)
    part = np.zeros(longest, flat.dtype)
    mine = slice(bounds[own], bounds[own + 1])
    part[: mine.stop - mine.start] = _combined(mesh, group, flat, mine, how, call)
    mesh.done(group, call)
    gathering = call + ", gathering"
    mesh.publish(part, group, gathering)
    result = np.empty_like(flat)
    for index, member in enumerate(group):
        begin, end = bounds[index], bounds[index + 1]
        result[begin:end] = mesh.read(member, part, gathering)[: end - begin]
    mesh.done(group, gathering)
    return result.reshape(array.shape)


def _combined(
    mesh: Mesh, group: tuple[int, ...], like: np.ndarray, part: slice, how: str, call: str
) -> np.ndarray:
    """Combine one part of what every member published."""
    combine = _COMBINE[how]
    wide = np.float32 if like.dtype.itemsize == 2 and like.dtype.kind not in "iu" else like.dtype
    first, *others = (mesh.read(member, like, call)[part] for member in group)
    total = first.astype(wide)
    for array in others:
        combine(total, array.astype(wide, copy=False), out=total)
    if how == "mean":
        total = total / len(group)
    return np.asarray(total, dtype=like.dtype)
