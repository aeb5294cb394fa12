"""Move and combine arrays between the ranks of a group. Every rank of the group must call.

What is large goes in pieces, so that it passes through caches and takes little extra memory.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

import numpy as np

from workers.resharding.region import Region, row_blocks
from workers.spmd.redistribution import Transfer
from workers.spmd.transport import Parts, Transport

_SPLIT_BYTES = 128 * 1024  # from here on every rank reduces a part, and the parts are gathered
_ALL = (slice(None),)

_COMBINE: dict[str, Callable[..., np.ndarray]] = {
    "sum": np.add,
    "mean": np.add,  # divided by the size of the group at the end
    "max": np.maximum,
    "min": np.minimum,
}


@dataclass(frozen=True)
class _Piece:
    """What one swap of an exchange does."""

    source: tuple[slice, ...]  # the part of this rank's array that is swapped
    gives: Parts  # within that part
    takes: Parts
    targets: tuple[tuple[slice, ...], ...]  # where what is taken goes


class Exchange:
    """Bring a tensor from one layout into another: prepared once, called for every batch."""

    def __init__(
        self,
        transport: Transport,
        transfer: Transfer,
        shape: tuple[int, ...],
        itemsize: int,
        call: str,
    ) -> None:
        """Prepare this rank's part; ``shape`` is that of its slice in the old layout."""
        self._transport, self._group, self._call = transport, transfer.group, call
        blocks = row_blocks(shape, transport.piece_bytes // itemsize)
        self._pieces = [_piece(transfer, block) for block in blocks]

    def __call__(self, array: np.ndarray, out: np.ndarray) -> None:
        """Fill ``out``, the slice in the new layout, from what the ranks hold in the old one."""
        swap = self._transport.swap
        for piece in self._pieces:
            held = array[piece.source]
            parts = swap(self._call, self._group, held, piece.gives, piece.takes)
            for target, part in zip(piece.targets, parts, strict=True):
                out[target] = part


def _piece(transfer: Transfer, block: Region) -> _Piece:
    gives, takes, targets = {}, {}, []
    for rank, box in transfer.gives:
        if (common := box.intersect(block)) is not None:
            gives[rank] = common.relative_to(block).as_slices()
    for copy in transfer.copies:
        if (common := copy.source.intersect(block)) is not None:
            takes[copy.source_rank] = common.relative_to(block).as_slices()
            targets.append(common.relative_to(copy.source).placed_in(copy.target).as_slices())
    return _Piece(block.as_slices(), gives, takes, tuple(targets))


class ReduceScatter:
    """Combine the arrays of a group, each rank its part of them: prepared once."""

    def __init__(
        self,
        transport: Transport,
        kept: Mapping[int, Region],
        shape: tuple[int, ...],
        itemsize: int,
        how: str,
        call: str,
    ) -> None:
        """Prepare; ``kept``: which part of arrays of this shape each rank of the group keeps."""
        self._transport, self._group = transport, tuple(kept)
        self._own, self._how, self._call = kept[transport.rank], how, call
        blocks = row_blocks(shape, transport.piece_bytes // itemsize)
        self._pieces = [self._piece(kept, block) for block in blocks]

    def __call__(self, array: np.ndarray) -> np.ndarray:
        """Return this rank's part of the combined arrays."""
        out = np.empty(self._own.shape, array.dtype)
        for piece in self._pieces:
            held = array[piece.source]
            parts = self._transport.swap(
                self._call, self._group, held, piece.gives, piece.takes
            )
            for target in piece.targets:
                out[target] = _combined(parts, self._how)
        return out

    def _piece(self, kept: Mapping[int, Region], block: Region) -> _Piece:
        gives = {}
        for rank, box in kept.items():
            if (common := box.intersect(block)) is not None:
                gives[rank] = common.relative_to(block).as_slices()
        own = self._own.intersect(block)
        if own is None:
            return _Piece(block.as_slices(), gives, {}, ())
        takes = dict.fromkeys(self._group, own.relative_to(block).as_slices())
        return _Piece(block.as_slices(), gives, takes, (own.relative_to(self._own).as_slices(),))


def all_gather(
    transport: Transport, group: tuple[int, ...], array: np.ndarray, call: str
) -> list[np.ndarray]:
    """Return what each rank of the group has, in its order; no more than fits into one piece."""
    whole = dict.fromkeys(group, (slice(None),) * array.ndim)
    return [part.copy() for part in transport.swap(call, group, array, whole, whole)]


def pass_on(
    transport: Transport, group: tuple[int, ...], array: np.ndarray, call: str
) -> None:
    """Give the array of the first rank of a group to the others, into the memory of theirs."""
    sender, *receivers = group
    sends = transport.rank == sender
    gives = dict.fromkeys(receivers if sends else (), _ALL)
    takes = dict.fromkeys(() if sends else (sender,), _ALL)
    flat = array.reshape(-1)
    step = transport.piece_bytes // flat.itemsize
    for begin in range(0, flat.size, step):
        piece = flat[begin : begin + step]
        for part in transport.swap(call, group, piece, gives, takes):
            piece[...] = part


def all_reduce(
    transport: Transport,
    group: tuple[int, ...],
    array: np.ndarray,
    how: str,
    call: str,
    out: np.ndarray | None = None,
) -> np.ndarray:
    """Combine the arrays of the group element by element; every rank gets the same bits.

    Each element is combined by one rank alone, or by all of them in the same order, the order
    of the group. Sums of 16-bit floats are made in float32.

    Args:
        out: where a large result goes, contiguous, ``array`` itself for example; not given, it
            goes into new memory.
    """
    flat = array.reshape(-1)
    if flat.nbytes < _SPLIT_BYTES:
        return _reduce_whole(transport, group, flat, how, call).reshape(array.shape)
    result = np.empty_like(array) if out is None else out
    target = result.view()
    target.shape = (-1,)  # never a copy
    step = transport.piece_bytes // flat.itemsize
    for begin in range(0, flat.size, step):
        piece, total = flat[begin : begin + step], target[begin : begin + step]
        if piece.nbytes < _SPLIT_BYTES:
            total[:] = _reduce_whole(transport, group, piece, how, call)
        else:
            _reduce_parts(transport, group, piece, total, how, call)
    return result


def _reduce_whole(
    transport: Transport, group: tuple[int, ...], array: np.ndarray, how: str, call: str
) -> np.ndarray:
    """Let every rank reduce all of an array: the fewest calls."""
    whole = dict.fromkeys(group, _ALL)
    return _combined(transport.swap(call, group, array, whole, whole), how)


def _reduce_parts(
    transport: Transport,
    group: tuple[int, ...],
    piece: np.ndarray,
    out: np.ndarray,
    how: str,
    call: str,
) -> None:
    """Let every rank reduce a part, and gather the parts of the others: the fewest additions."""
    bounds = [piece.size * i // len(group) for i in range(len(group) + 1)]
    slices = [(slice(*pair),) for pair in zip(bounds, bounds[1:], strict=False)]
    parts = dict(zip(group, slices, strict=True))
    own = parts[transport.rank]
    mine = transport.swap(call, group, piece, parts, dict.fromkeys(group, own))
    longest = max(end - begin for begin, end in zip(bounds, bounds[1:], strict=False))
    reduced = np.empty(longest, piece.dtype)
    length = own[0].stop - own[0].start
    reduced[:length] = _combined(mine, how)
    gives = dict.fromkeys(group, (slice(length),))
    takes = {member: (slice(part.stop - part.start),) for member, (part,) in parts.items()}
    gathered = transport.swap(call, group, reduced, gives, takes)
    for (part,), received in zip(slices, gathered, strict=True):
        out[part] = received


def _combined(arrays: list[np.ndarray], how: str) -> np.ndarray:
    """Combine arrays in their order."""
    combine = _COMBINE[how]
    first, *others = arrays
    narrow = first.dtype
    wide = np.float32 if narrow.itemsize == 2 and narrow.kind not in "iu" else narrow
    total = first.astype(wide)
    for array in others:
        combine(total, array if narrow == wide else array.astype(wide), out=total)
    if how == "mean":
        total = total / len(arrays)
    return total.astype(narrow, copy=False)
