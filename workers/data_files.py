"""Read batches from files, one at a time: .npy, .npz, .safetensors, or a folder of these."""

from __future__ import annotations

import math
import re
import struct
import zipfile
from bisect import bisect_right
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from itertools import accumulate
from pathlib import Path
from typing import IO

import numpy as np
from numpy.lib import format as npy

from workers.errors import InputError
from workers.resharding.checkpoint_file import read_index
from workers.resharding.dtypes import STORAGE
from workers.resharding.errors import ReshardError

SUFFIXES = (".npy", ".npz", ".safetensors")
BATCH_SIZE = 32  # where the job names none
_ZIP_HEADER = struct.Struct("<26xHH")  # of a member: then come its name and extra field
_WITHOUT_NUMPY = "BFloat16"


class DataFileError(InputError):
    """A data file cannot be read, or not as batches."""

    def __init__(self, path: str, what: str, fix: str) -> None:
        super().__init__(path, what, fix)
        self.path, self.what, self.fix = path, what, fix

    def __str__(self) -> str:
        return f"{self.path}: {self.what}; {self.fix}"


def is_data_file(name: str) -> bool:
    """Say whether predict data are files rather than a callable."""
    return name.partition(":")[0].endswith(SUFFIXES) or Path(name).is_dir()


@dataclass(frozen=True)
class StoredArray:
    """An array that lies in a file as it is, or that had to be loaded whole."""

    path: Path
    dtype: np.dtype
    shape: tuple[int, ...]
    offset: int  # in the file, of the first element
    loaded: np.ndarray | None = None

    def read(self, start: int, stop: int) -> np.ndarray:
        """Return some rows; memory holds those and no others."""
        if self.loaded is not None:
            return self.loaded[start:stop]
        row = math.prod(self.shape[1:])
        offset = self.offset + start * row * self.dtype.itemsize
        flat = np.fromfile(self.path, self.dtype, (stop - start) * row, offset=offset)
        return flat.reshape(stop - start, *self.shape[1:])


class DataFiles(Sequence[tuple[np.ndarray, ...]]):
    """The batches of all files; the arrays of one file are the inputs of the network."""

    def __init__(self, name: str, batch_size: int | None = None) -> None:
        """Read the headers.

        Raises:
            DataFileError: there is no file, or one that is damaged, or has no rows to cut.
        """
        self._size = batch_size or BATCH_SIZE
        path, _, key = name.partition(":")
        self._files = [_open(file, key) for file in _found(Path(path))]
        rows = [arrays[0].shape[0] for arrays in self._files]
        self._rows = [0, *accumulate(rows)]  # before each file
        self._batches = [0, *accumulate(-(-count // self._size) for count in rows)]

    @property
    def samples(self) -> int:
        return self._rows[-1]

    def __len__(self) -> int:
        return self._batches[-1]

    def __getitem__(self, number: int) -> tuple[np.ndarray, ...]:  # type: ignore[override]
        file, start = self._locate(number)
        stop = min(start + self._size, self._files[file][0].shape[0])
        return tuple(array.read(start, stop) for array in self._files[file])

    def first_row(self, number: int) -> int:
        """Return which sample of all files is the first of a batch."""
        file, start = self._locate(number)
        return self._rows[file] + start

    def read_ahead(self, numbers: Iterable[int]) -> Iterator[tuple[np.ndarray, ...]]:
        """Yield these batches; the next one is read while the caller works on the one before."""
        with ThreadPoolExecutor(1) as reader:
            coming = None
            for number in numbers:
                following = reader.submit(self.__getitem__, number)
                if coming is not None:
                    yield coming.result()
                coming = following
            if coming is not None:
                yield coming.result()

    def _locate(self, number: int) -> tuple[int, int]:
        if not 0 <= number < len(self):
            raise IndexError(number)
        file = bisect_right(self._batches, number) - 1
        return file, (number - self._batches[file]) * self._size


def _found(path: Path) -> list[Path]:
    if not path.is_dir():
        return [path]
    files = [file for file in path.iterdir() if file.suffix in SUFFIXES]
    if not files:
        fix = f"name a folder with {', '.join(SUFFIXES)} files"
        raise DataFileError(str(path), "the folder holds no data", fix)
    return sorted(files, key=_natural)


def _natural(path: Path) -> list[tuple[int, str]]:
    """Return a key that puts part_10 behind part_9."""
    parts = re.split(r"(\d+)", path.name)
    return [(int(part), "") if part.isdecimal() else (-1, part) for part in parts]


def _open(path: Path, key: str) -> list[StoredArray]:
    """Return the arrays of a file, or the one that ``key`` names."""
    opened = {".npy": _open_npy, ".npz": _open_npz, ".safetensors": _open_safetensors}
    try:
        arrays = opened[path.suffix](path)
    except (OSError, ValueError, EOFError, zipfile.BadZipFile, ReshardError) as error:
        reason = getattr(error, "strerror", None) or str(error)
        raise DataFileError(str(path), reason, "name a file that can be read") from error
    if key and key not in arrays:
        raise DataFileError(str(path), f"no array {key!r}", f"it has {', '.join(arrays)}")
    chosen = [arrays[key]] if key else list(arrays.values())
    rows = {array.shape[:1] for array in chosen}
    if len(rows) != 1 or () in rows:
        shapes = ", ".join(f"{name} {array.shape}" for name, array in arrays.items()) or "nothing"
        fix = "give all inputs as many rows, or name one array with FILE:KEY"
        raise DataFileError(str(path), f"it holds {shapes}", fix)
    return chosen


def _open_npy(path: Path) -> dict[str, StoredArray]:
    with open(path, "rb") as file:
        return {"": _described(path, file) or _loaded(path, np.load(path, allow_pickle=False))}


def _open_npz(path: Path) -> dict[str, StoredArray]:
    arrays = {}
    with zipfile.ZipFile(path) as archive, open(path, "rb") as raw:
        for member in archive.infolist():
            name = member.filename.removesuffix(".npy")
            raw.seek(member.header_offset)
            lengths = _ZIP_HEADER.unpack(raw.read(_ZIP_HEADER.size))
            start = member.header_offset + _ZIP_HEADER.size + sum(lengths)
            raw.seek(start)
            stored = member.compress_type == zipfile.ZIP_STORED
            found = _described(path, raw) if stored else None
            if found is None:
                with archive.open(member) as file:
                    found = _loaded(path, _whole(file))
            arrays[name] = found
    return arrays


def _open_safetensors(path: Path) -> dict[str, StoredArray]:
    arrays = {}
    for name, tensor in read_index(path).tensors.items():
        if tensor.dtype not in STORAGE or tensor.dtype == _WITHOUT_NUMPY:
            raise ValueError(f"{name} is {tensor.dtype}, which NumPy has not")
        (chunk,) = tensor.chunks
        arrays[name] = StoredArray(path, STORAGE[tensor.dtype], tensor.dims, chunk.offset)
    return arrays


def _described(path: Path, file: IO[bytes]) -> StoredArray | None:
    """Return the array whose .npy header comes next, if it lies there in C order."""
    version = npy.read_magic(file)  # type: ignore[no-untyped-call]
    read = npy.read_array_header_1_0 if version == (1, 0) else npy.read_array_header_2_0
    shape, fortran_order, dtype = read(file)  # type: ignore[no-untyped-call]
    if dtype.hasobject:
        raise ValueError("it holds Python objects, not numbers")
    if fortran_order or dtype.byteorder == ">":
        return None
    return StoredArray(path, dtype, shape, file.tell())


def _whole(file: IO[bytes]) -> np.ndarray:
    array: np.ndarray = npy.read_array(file, allow_pickle=False)  # type: ignore[no-untyped-call]
    return array


def _loaded(path: Path, array: np.ndarray) -> StoredArray:
    native = np.ascontiguousarray(array, array.dtype.newbyteorder("="))
    return StoredArray(path, native.dtype, native.shape, 0, native)
