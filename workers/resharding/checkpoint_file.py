"""Know the .ckpt format: find the tensors of a file without reading them, and write a file.

A file is a row of protobuf messages, one for each parameter, or for each chunk of a parameter of
more than 512 MiB. One small read for each header is all that an index costs.
"""

from __future__ import annotations

import math
import os
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from types import MappingProxyType
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from workers.resharding import wire
from workers.resharding.atomic import atomic_file
from workers.resharding.dtypes import STORAGE, name_of
from workers.resharding.errors import CheckpointFormatError, EncryptedCheckpointError
from workers.resharding.wire import Field, WireError

# Field numbers of the messages Checkpoint, Checkpoint.Value and TensorProto.
_VALUE = 1
_TAG, _TENSOR = 1, 2
_DIMS, _TENSOR_TYPE, _CONTENT = 1, 2, 3

_CRC_MARK, _CRC_FOOTER_SIZE = b"crc_num", 17  # the mark, then ten big-endian bytes
_CIPHERS = {0x7F3A5ED8: "AES-GCM", 0x7F3A5ED9: "AES-CBC", 0x7F3A5EDA: "SM4-CBC"}
_OPAQUE = "MapTensor"  # the type of entries that are no tensor
_MOST_DIMS = 32  # NumPy has no more


class Chunk(NamedTuple):
    """A run of bytes of a file."""

    offset: int
    nbytes: int


@dataclass(frozen=True)
class SavedTensor:
    """A parameter of a checkpoint file: its chunks, one after the other, hold it row by row."""

    dtype: str  # MindSpore's name; may be one that nobody can load
    dims: tuple[int, ...]
    chunks: tuple[Chunk, ...]

    @property
    def nbytes(self) -> int:
        return sum(chunk.nbytes for chunk in self.chunks)


class FileIdentity(NamedTuple):
    """What changes when somebody writes a file."""

    device: int
    inode: int
    size: int
    mtime_ns: int

    @classmethod
    def of(cls, descriptor: int) -> FileIdentity:
        status = os.fstat(descriptor)
        return cls(status.st_dev, status.st_ino, status.st_size, status.st_mtime_ns)


@dataclass(frozen=True)
class CheckpointIndex:
    """Where each tensor of a file lies."""

    path: Path
    identity: FileIdentity
    tensors: Mapping[str, SavedTensor]  # in the order of the file
    crc32: int | None = None  # of everything before the footer, if the file has one


def read_index(path: str | Path) -> CheckpointIndex:
    """Return the index of a checkpoint file.

    Raises:
        CheckpointFormatError: the file cannot be opened, is no checkpoint, or is torn.
        EncryptedCheckpointError: the file is encrypted.
    """
    path = Path(path)
    try:
        descriptor = os.open(path, os.O_RDONLY)
    except OSError as error:
        raise CheckpointFormatError(str(path), 0, f"cannot be opened: {error.strerror}") from error
    try:
        identity = FileIdentity.of(descriptor)
        source = _FileWindow(descriptor)
        _refuse_other_formats(path, identity.size, source)
        stop, crc32 = _footer(source, identity.size)
        return CheckpointIndex(path, identity, _collect(source, stop), crc32)
    except WireError as error:
        raise CheckpointFormatError(str(path), error.offset, error.reason) from error
    except OSError as error:
        raise CheckpointFormatError(str(path), 0, f"cannot be read: {error.strerror}") from error
    finally:
        os.close(descriptor)


class _FileWindow:
    """The bytes of a file, read where they are asked for and a little beyond."""

    _AHEAD = 1024  # covers the header of a tensor, and many small tensors

    def __init__(self, descriptor: int) -> None:
        self._descriptor = descriptor
        self._start, self._bytes = 0, b""

    def __getitem__(self, bounds: slice) -> bytes:
        start, stop = bounds.start, bounds.stop
        if start < self._start or stop > self._start + len(self._bytes):
            self._start = start
            self._bytes = os.pread(self._descriptor, max(stop - start, self._AHEAD), start)
        return self._bytes[start - self._start : stop - self._start]


def _refuse_other_formats(path: Path, size: int, source: _FileWindow) -> None:
    if size == 0:
        raise CheckpointFormatError(str(path), 0, "the file is empty")
    if path.suffix == ".safetensors":
        raise CheckpointFormatError(str(path), 0, "safetensors files are not supported yet")
    cipher = _CIPHERS.get(int.from_bytes(source[0:4], "little"))
    if cipher is not None:
        raise EncryptedCheckpointError(str(path), cipher)


def _footer(source: _FileWindow, size: int) -> tuple[int, int | None]:
    """Return where the messages end, and the checksum if one follows."""
    start = max(size - _CRC_FOOTER_SIZE, 0)
    footer = source[start:size]
    if not footer.startswith(_CRC_MARK):
        return size, None
    return start, int.from_bytes(footer[len(_CRC_MARK) :], "big")


def _collect(source: _FileWindow, stop: int) -> dict[str, SavedTensor]:
    """Walk the messages up to ``stop``; the chunks of one parameter are neighbours."""
    tensors: dict[str, SavedTensor] = {}
    last = None
    for field in wire.fields(source, 0, stop):
        if field.number != _VALUE or field.wire_type != wire.BYTES:
            raise WireError(field.start, "this is no checkpoint; is it a strategy file?")
        name, tensor = _read_value(source, field)
        if name in tensors:
            known = tensors[name]
            if name != last or (known.dtype, known.dims) != (tensor.dtype, tensor.dims):
                raise WireError(field.start, f"{name} comes a second time")
            tensor = replace(known, chunks=known.chunks + tensor.chunks)
        tensors[name] = tensor
        last = name
    return {name: _checked(name, tensor) for name, tensor in tensors.items()}


def _read_value(source: _FileWindow, value: Field) -> tuple[str, SavedTensor]:
    """Return the name of a parameter, and the one chunk of it that this message holds."""
    name, tensor = None, SavedTensor(_OPAQUE, (), ())
    for field in wire.fields(source, value.start, value.stop):
        if field.number == _TAG:
            name = wire.text(source, field)
        elif field.number == _TENSOR and field.wire_type == wire.BYTES:
            tensor = _read_tensor(source, field)
    if name is None:
        raise WireError(value.start, "a parameter has no name")
    return name, tensor


def _read_tensor(source: _FileWindow, tensor: Field) -> SavedTensor:
    dtype, dims, content = "", [], Chunk(tensor.stop, 0)
    for field in wire.fields(source, tensor.start, tensor.stop):
        if field.number == _DIMS:
            dims += wire.integers(source, field)
        elif field.number == _TENSOR_TYPE:
            dtype = wire.text(source, field)
        elif field.number == _CONTENT and field.wire_type == wire.BYTES:
            content = Chunk(field.start, field.size)
    if len(dims) > _MOST_DIMS or any(size < 0 for size in dims):
        raise WireError(tensor.start, f"a tensor has the impossible shape {dims[:_MOST_DIMS]}")
    return SavedTensor(dtype, tuple(dims), (content,))


def _checked(name: str, tensor: SavedTensor) -> SavedTensor:
    """Return the tensor with the dims that its content has; refuse content of another size.

    Content of a type that nobody can load is not looked at: it is refused when it is wanted.
    """
    if tensor.dtype not in STORAGE:
        return tensor
    itemsize = STORAGE[tensor.dtype].itemsize
    if tensor.dims == (0,) and tensor.nbytes == itemsize:
        return replace(tensor, dims=())  # a scalar, as MindSpore 2.0 wrote it
    needed = math.prod(tensor.dims) * itemsize
    if tensor.nbytes != needed or any(chunk.nbytes % itemsize for chunk in tensor.chunks):
        raise WireError(
            tensor.chunks[0].offset,
            f"{name} has {tensor.nbytes} bytes, but {tensor.dtype} of shape"
            f" {list(tensor.dims)} takes {needed}",
        )
    return tensor


def write_checkpoint(
    path: str | Path,
    tensors: Mapping[str, NDArray[Any]],
    dtypes: Mapping[str, str] = MappingProxyType({}),
    chunk_nbytes: int = 512 << 20,
) -> None:
    """Write arrays as a checkpoint that ``mindspore.load_checkpoint`` reads.

    Args:
        dtypes: MindSpore's name of an element type, for arrays whose NumPy type does not tell
            (bfloat16 held as uint16: ``{"w": "BFloat16"}``).
        chunk_nbytes: cut larger parameters into chunks of this size.
    """
    with atomic_file(Path(path)) as file:
        for name, array in tensors.items():
            dtype = dtypes.get(name) or name_of(array.dtype)
            if array.dtype != STORAGE[dtype]:
                raise ValueError(f"{name}: {array.dtype} does not hold the bits of {dtype}")
            content = np.ascontiguousarray(array).reshape(-1).view(np.uint8).data
            for start in range(0, max(len(content), 1), chunk_nbytes):
                chunk = content[start : start + chunk_nbytes]
                file.write(_value_header(name, dtype, array.shape, len(chunk)))
                file.write(chunk)


def _value_header(name: str, dtype: str, dims: tuple[int, ...], nbytes: int) -> bytes:
    """Write all that stands before the content of a chunk."""
    tensor = b"".join(wire.number_field(_DIMS, size) for size in dims)
    tensor += wire.bytes_field(_TENSOR_TYPE, dtype.encode())
    tensor += wire.bytes_field_header(_CONTENT, nbytes)
    value = wire.bytes_field(_TAG, name.encode())
    value += wire.bytes_field_header(_TENSOR, len(tensor) + nbytes) + tensor
    return wire.bytes_field_header(_VALUE, len(value) + nbytes) + value
