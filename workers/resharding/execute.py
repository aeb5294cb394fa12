"""Carry out a load plan: copy the planned boxes out of the files, and touch no other byte."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray

from workers.resharding.dtypes import STORAGE
from workers.resharding.file_bytes import FileBytes, OpenFiles
from workers.resharding.plan import FileRead, LoadPlan, SlicePlan
from workers.resharding.region import Region
from workers.resharding.remote.planned import Watch, fetched
from workers.resharding.strided import box_of_block, pieces

_MOST_OPEN = 256  # files; a process may often open 1024
_HUGE_PAGE = 2 << 20  # bytes, of x86-64 and of arm64 with pages of 4 KiB
_ALIGNMENT = 64  # bytes; what MindSpore asks of a tensor that it takes without a copy
_MOST_THREADS = 8  # they share the memory of one socket
_SHARE_NBYTES = 16 << 20  # that are worth a thread

_Copy: TypeAlias = tuple[FileRead, NDArray[Any]]


def execute(
    plan: LoadPlan,
    watch: Watch | None = None,
    memory: NDArray[np.uint8] | None = None,
    threads: int = 1,
) -> dict[str, NDArray[Any]]:
    """Return the planned slices as fresh arrays; bfloat16 as uint16.

    Args:
        watch: is told how far it is while remote files are fetched.
        memory: where the arrays shall lie; ``block_bytes`` of it.
        threads: that may copy at the same time.

    Raises:
        FileChangedError: a file was written after its index was read, or during the copy.
    """
    arrays = allocate(plan.slices, memory)
    copies = [
        (read, _cut(arrays[part.name], read.target)) for part in plan.slices for read in part.reads
    ]
    most_open = _MOST_OPEN
    if any(index.cipher for index in plan.files.values()):
        # File by file, so that each block is decrypted once.
        copies.sort(key=lambda copy: (str(copy[0].path), copy[0].offset))
        most_open = threads = 1
    # Otherwise slice by slice: a slice that is made of several files stays in the caches.
    shares = list(_shares(copies, min(threads, _MOST_THREADS)))
    with fetched(plan, watch) as mirrors, ThreadPoolExecutor(max(len(shares), 1)) as pool:

        def carry_out(share: Sequence[_Copy]) -> None:
            with OpenFiles(plan.files, most_open, mirrors, len(shares)) as files:
                for read, target in share:
                    _copy_box(files[read.path], target, read)

        if len(shares) == 1:
            carry_out(shares[0])
        else:
            list(pool.map(carry_out, shares))  # raises what one of them has raised
    return arrays


def _shares(copies: Sequence[_Copy], threads: int) -> Iterator[Sequence[_Copy]]:
    """Yield runs of copies of about as many bytes each, for so many threads or fewer."""
    whole = sum(target.nbytes for _, target in copies)
    enough = max(-(-whole // threads), _SHARE_NBYTES)
    first = held = 0
    for index, (_, target) in enumerate(copies, 1):
        held += target.nbytes
        if held >= enough or index == len(copies):
            yield copies[first:index]
            first, held = index, 0


def block_bytes(slices: Sequence[SlicePlan]) -> int:
    """Return how much memory the arrays of some slices take."""
    return max((place.stop for place in _places(slices)), default=0)


def allocate(
    slices: Sequence[SlicePlan], memory: NDArray[np.uint8] | None = None
) -> dict[str, NDArray[Any]]:
    """Return an array for each slice, all in one block of memory, a new one if none is given.

    That begins with a huge page, so that the system need not make it of small ones: that takes
    less time than the copy, small pages take as much again.
    """
    places = _places(slices)
    if memory is None:
        size = block_bytes(slices)
        alignment = _HUGE_PAGE if size >= _HUGE_PAGE else _ALIGNMENT
        memory = np.empty(size + alignment, np.uint8)
        memory = memory[-memory.ctypes.data % alignment :]
    return {
        part.name: memory[place].view(STORAGE[part.dtype]).reshape(part.shape)
        for part, place in zip(slices, places, strict=True)
    }


def _places(slices: Sequence[SlicePlan]) -> list[slice]:
    places, stop = [], 0
    for part in slices:
        start = stop + -stop % _ALIGNMENT
        stop = start + math.prod(part.shape) * part.itemsize
        places.append(slice(start, stop))
    return places


def _copy_box(file: FileBytes, target: NDArray[Any], read: FileRead) -> None:
    box = box_of_block(read.offset, read.shape, read.source, target.itemsize)
    for into, piece in pieces(target, box, file.most_nbytes, file.dense_nbytes):
        memory = file.view(piece.offset, piece.stop, dense=2 * piece.nbytes > piece.span)
        np.copyto(into, np.ndarray(piece.shape, target.dtype, memory, 0, piece.strides))


def _cut(array: NDArray[Any], box: Region) -> NDArray[Any]:
    """Return a view of a box."""
    index: tuple[Any, ...] = (*box.as_slices(), ...)  # the dots: a scalar stays an array
    view: NDArray[Any] = array[index]
    return view
