"""Carry out a load plan: copy the planned boxes out of the files, and touch no other byte."""

from __future__ import annotations

import math
import mmap
from collections import defaultdict
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from workers.resharding.checkpoint_file import FileIdentity
from workers.resharding.dtypes import STORAGE
from workers.resharding.errors import FileChangedError
from workers.resharding.plan import FileRead, LoadPlan
from workers.resharding.region import Region

_ALIGNMENT = 64  # bytes; what MindSpore asks of a tensor that it takes without a copy
_WINDOW = 32 << 20  # bytes of a file that may count as memory of this process


def execute(plan: LoadPlan) -> dict[str, NDArray[Any]]:
    """Return the planned slices as fresh arrays; bfloat16 as uint16.

    The files are mapped, so a file that somebody cuts shorter meanwhile ends the process (SIGBUS).

    Raises:
        FileChangedError: a file was written after its index was read, or during the copy.
    """
    arrays = {part.name: empty(part.shape, STORAGE[part.dtype]) for part in plan.slices}
    reads: dict[Path, list[tuple[NDArray[Any], FileRead]]] = defaultdict(list)
    for part in plan.slices:
        for read in part.reads:
            reads[read.path].append((_cut(arrays[part.name], read.target), read))
    for path, copies in reads.items():
        copies.sort(key=lambda copy: copy[1].offset)
        _copy_from(path, plan.files[path], copies)
    return arrays


def empty(shape: tuple[int, ...], dtype: np.dtype[Any]) -> NDArray[Any]:
    """Return a new array whose first element lies at an aligned address."""
    nbytes = math.prod(shape) * dtype.itemsize
    memory = np.empty(nbytes + _ALIGNMENT, np.uint8)
    start = -memory.ctypes.data % _ALIGNMENT
    return memory[start : start + nbytes].view(dtype).reshape(shape)


def _copy_from(
    path: Path, identity: FileIdentity, copies: list[tuple[NDArray[Any], FileRead]]
) -> None:
    try:
        file = path.open("rb")
    except FileNotFoundError as error:
        raise FileChangedError(str(path)) from error
    with file:
        if FileIdentity.of(file.fileno()) != identity:
            raise FileChangedError(str(path))
        with mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as mapped:
            mapped_nbytes = 0
            for target, read in copies:
                mapped_nbytes = _copy_box(mapped, target, read, mapped_nbytes)
        if FileIdentity.of(file.fileno()) != identity:
            raise FileChangedError(str(path))


def _copy_box(
    mapped: mmap.mmap, target: NDArray[Any], read: FileRead, mapped_nbytes: int
) -> int:
    """Copy one box; return how much of the file is in the memory of this process by now."""
    block: NDArray[Any] = np.ndarray(read.shape, target.dtype, mapped, read.offset)
    for into, out_of in _pieces(target, _cut(block, read.source)):
        np.copyto(into, out_of)
        mapped_nbytes += _span(out_of)
        if mapped_nbytes > _WINDOW:
            mapped.madvise(mmap.MADV_DONTNEED)  # the pages stay in the cache of the system
            mapped_nbytes = 0
    return mapped_nbytes


def _pieces(
    target: NDArray[Any], source: NDArray[Any]
) -> Iterator[tuple[NDArray[Any], NDArray[Any]]]:
    """Divide a copy until no piece spans more of the file than the window."""
    if source.ndim == 0 or _span(source) <= _WINDOW:
        yield target, source
        return
    rows = _WINDOW // source.strides[0]
    if rows:
        for first in range(0, len(source), rows):
            yield target[first : first + rows], source[first : first + rows]
    else:
        for row in zip(target, source):
            yield from _pieces(*row)


def _cut(array: NDArray[Any], box: Region) -> NDArray[Any]:
    """Return a view of a box."""
    index: tuple[Any, ...] = (*box.as_slices(), ...)  # the dots: a scalar stays an array
    view: NDArray[Any] = array[index]
    return view


def _span(array: NDArray[Any]) -> int:
    """Return the bytes from the first element of an array to its last."""
    return array.itemsize + sum(
        (size - 1) * stride for size, stride in zip(array.shape, array.strides)
    )
