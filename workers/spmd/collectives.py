"""Move and combine arrays between the ranks of a group. Every rank of the group must call."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence

import numpy as np

from workers.spmd.redistribution import Transfer
from workers.spmd.transport import Transport

_SPLIT_BYTES = 64 * 1024  # from here on every rank reduces a part, and the parts are gathered

_COMBINE: dict[str, Callable[..., np.ndarray]] = {
    "sum": np.add,
    "mean": np.add,  # divided by the size of the group at the end
    "max": np.maximum,
    "min": np.minimum,
}


def exchange(
    transport: Transport, transfer: Transfer, array: np.ndarray, out: np.ndarray, call: str
) -> None:
    """Fill ``out``, this rank's part in the new layout, from what the ranks held in the old one."""
    takes = {copy.source_rank: copy.source.as_slices() for copy in transfer.copies}
    gives = {rank: box.as_slices() for rank, box in transfer.gives}
    parts = transport.swap(call, array, gives, takes)
    for copy, part in zip(transfer.copies, parts, strict=True):
        np.copyto(out[copy.target.as_slices()], part)


def all_gather(
    transport: Transport, group: Sequence[int], array: np.ndarray, call: str
) -> list[np.ndarray]:
    """Return what each rank of the group has, in its order."""
    whole = {member: (slice(None),) * array.ndim for member in group}
    return [part.copy() for part in transport.swap(call, array, whole, whole)]


def all_reduce(
    transport: Transport, group: tuple[int, ...], array: np.ndarray, how: str, call: str
) -> np.ndarray:
    """Combine the arrays of the group element by element; every rank gets the same bits.

    Each element is combined by one rank alone, or by all of them in the same order, the order
    of the group. Sums of 16-bit floats are made in float32.
    """
    flat = np.ascontiguousarray(array).reshape(-1)
    if array.nbytes < _SPLIT_BYTES:
        whole = dict.fromkeys(group, (slice(None),))
        result = _combined(transport.swap(call, flat, whole, whole), len(group), how)
        return result.reshape(array.shape)
    bounds = [flat.size * i // len(group) for i in range(len(group) + 1)]
    parts = {
        member: (slice(*pair),)
        for member, pair in zip(group, zip(bounds, bounds[1:], strict=False), strict=True)
    }
    own = parts[transport.rank]
    mine = transport.swap(call, flat, parts, dict.fromkeys(group, own))
    result = np.empty_like(flat)
    result[own] = _combined(mine, len(group), how)
    gathering = transport.swap(call + ", gathering", result, dict.fromkeys(group, own), parts)
    for part, received in zip(parts.values(), gathering, strict=True):
        result[part] = received
    return result.reshape(array.shape)


def _combined(arrays: Iterator[np.ndarray], count: int, how: str) -> np.ndarray:
    """Combine arrays in their order."""
    combine = _COMBINE[how]
    first = next(arrays)
    narrow = first.dtype
    wide = np.float32 if narrow.itemsize == 2 and narrow.kind not in "iu" else narrow
    total = first.astype(wide)
    for array in arrays:
        combine(total, array.astype(wide, copy=False), out=total)
    if how == "mean":
        total = total / count
    return np.asarray(total, dtype=narrow)
