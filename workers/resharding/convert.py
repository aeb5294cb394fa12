"""Carry out the tasks of a conversion: read the boxes of each, and write them where they go."""

from __future__ import annotations

import os
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from workers.resharding.conversion import Conversion
from workers.resharding.execute import execute
from workers.resharding.index import SavedTensor
from workers.resharding.parameter_map import PARAMETER_MAP, parameter_map_text
from workers.resharding.plan import make_plan, plan_slice


def files_are_there(conversion: Conversion, folder: Path) -> bool:
    """Return whether ``write_headers`` has made every file, and nobody removed or cut it since."""
    files = [(folder / output.path, output.new.nbytes) for output in conversion.outputs]
    return all(path.is_file() and path.stat().st_size == nbytes for path, nbytes in files)


def write_headers(conversion: Conversion, folder: Path) -> None:
    """Make every file, of its full size and with everything but the tensors."""
    for output in conversion.outputs:
        path = folder / output.path
        path.parent.mkdir(parents=True, exist_ok=True)
        descriptor = os.open(path, os.O_WRONLY | os.O_CREAT, 0o644)
        try:
            os.ftruncate(descriptor, output.new.nbytes)
            for offset, header in output.new.headers:
                _write(descriptor, memoryview(header), offset)
            os.fsync(descriptor)
        finally:
            os.close(descriptor)
    if conversion.parameter_map is not None:
        tensors = [t for output in conversion.outputs for t in output.new.tensors.values()]
        text = parameter_map_text(conversion.parameter_map, sum(t.nbytes for t in tensors))
        (folder / PARAMETER_MAP).write_text(text, encoding="utf-8")


def carry_out(conversion: Conversion, number: int, folder: Path) -> int:
    """Do one task, and return how many bytes it wrote. They are on disk then.

    Raises:
        FileChangedError: a file of the checkpoint was written meanwhile.
    """
    pieces = conversion.tasks[number]
    output = conversion.outputs[pieces[0].output]
    checkpoint, slices = conversion.checkpoint, []
    for place, piece in enumerate(pieces):  # several may be of one parameter: a place names each
        part = plan_slice(checkpoint, piece.name, (piece.box,), output.rank)
        slices.append(replace(part, name=str(place)))
    arrays = execute(make_plan(checkpoint, slices, output.rank))
    descriptor = os.open(folder / output.path, os.O_WRONLY)
    try:
        for piece, array in zip(pieces, arrays.values(), strict=True):
            _write_content(descriptor, output.new.tensors[piece.name], array, piece.start)
        os.fdatasync(descriptor)
    finally:
        os.close(descriptor)
    return sum(piece.nbytes for piece in pieces)


def _write_content(
    descriptor: int, tensor: SavedTensor, array: NDArray[Any], start: int
) -> None:
    """Write a run of a tensor that begins at its byte ``start`` into the chunks that hold it."""
    content = array.reshape(-1).view(np.uint8).data
    first = 0  # of a chunk, in the tensor
    for chunk in tensor.chunks:
        low, high = max(start, first), min(start + len(content), first + chunk.nbytes)
        if low < high:
            _write(descriptor, content[low - start : high - start], chunk.offset + low - first)
        first += chunk.nbytes


def _write(descriptor: int, content: memoryview, offset: int) -> None:
    while content:
        count = os.pwrite(descriptor, content, offset)
        content, offset = content[count:], offset + count
