"""Write a .npy file that grows along its first dim; knows the format and nothing of ranks."""

from __future__ import annotations

import math
import os
import struct
from pathlib import Path

import numpy as np

HEADER_BYTES = 512  # fixed, so that the header can be written again when the shape is known


class GrowingNpy:
    """A .npy file that is valid from the beginning, and complete whenever ``commit`` returns."""

    def __init__(
        self, path: Path, dtype: np.dtype, item_shape: tuple[int, ...], keep: int = 0
    ) -> None:
        """Create the file with no rows; ``item_shape`` is the shape of one row.

        Args:
            keep: so many rows of the file that is there stay; they must be of this kind.

        Raises:
            ValueError: there is no such file, or its rows are of another kind.
        """
        self.path = path
        self._dtype, self._item_shape = dtype.newbyteorder("<"), item_shape
        self._row_bytes = math.prod(item_shape) * dtype.itemsize
        self._end, self._rows = HEADER_BYTES + keep * self._row_bytes, keep
        if keep:
            self._require_rows(keep)
        fresh = 0 if keep else os.O_CREAT | os.O_TRUNC
        self._file = os.open(path, os.O_RDWR | os.O_CLOEXEC | fresh, 0o644)
        self.show(keep)

    def append(self, rows: np.ndarray) -> int:
        """Add rows behind those that are there; return how many there are then."""
        data = self._bytes_of(rows)
        self._write(data, self._end)
        self._end += len(data)
        self._rows += len(rows)
        return self._rows

    def place(self, rows: np.ndarray, start: int, step: int = 1) -> None:
        """Write rows ``start``, ``start + step``, ... whatever is written before them."""
        offset = HEADER_BYTES + start * self._row_bytes
        if step == 1:
            self._write(self._bytes_of(rows), offset)
            return
        for index, row in enumerate(rows):
            self._write(self._bytes_of(row), offset + index * step * self._row_bytes)

    def show(self, rows: int) -> None:
        """Let whoever opens the file from now on see so many rows."""
        self._write(_header(self._dtype, (rows, *self._item_shape)), 0)

    def commit(self, rows: int, shape: tuple[int, ...] | None = None) -> None:
        """Make the first ``rows`` rows the content, in ``shape``, and see it to the disk."""
        os.ftruncate(self._file, HEADER_BYTES + rows * self._row_bytes)
        self._write(_header(self._dtype, (rows, *self._item_shape) if shape is None else shape), 0)
        os.fsync(self._file)

    def close(self) -> None:
        """Let go of the file. Allowed twice."""
        if self._file >= 0:
            os.close(self._file)
            self._file = -1

    def _require_rows(self, count: int) -> None:
        there = np.load(self.path, mmap_mode="r")
        if (there.dtype, there.shape[1:]) != (self._dtype, self._item_shape) or len(there) < count:
            raise ValueError(
                f"{self.path} holds {there.dtype} of shape {there.shape}, not {count} rows of"
                f" {self._dtype} of shape {self._item_shape}"
            )

    def _bytes_of(self, rows: np.ndarray) -> memoryview:
        return np.ascontiguousarray(rows, self._dtype).reshape(-1).view(np.uint8).data

    def _write(self, data: bytes | memoryview, offset: int) -> None:
        view = memoryview(data)
        while view:
            written = os.pwrite(self._file, view, offset)
            view, offset = view[written:], offset + written


def _header(dtype: np.dtype, shape: tuple[int, ...]) -> bytes:
    """Return a header of version 1.0, padded with spaces as the format says."""
    described = repr({"descr": dtype.str, "fortran_order": False, "shape": shape}).encode()
    prefix = b"\x93NUMPY\x01\x00" + struct.pack("<H", HEADER_BYTES - 10)
    return prefix + described.ljust(HEADER_BYTES - 11) + b"\n"
