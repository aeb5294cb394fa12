"""Know the .ckpt format: where the tensors of a file lie, and the headers of a new file.

A file is a row of protobuf messages, one for each parameter, or for each chunk of a parameter of
more than 512 MiB. One small read for each header is all that an index costs.
"""

from __future__ import annotations

import math
from collections.abc import Mapping

from workers.resharding import wire
from workers.resharding.dtypes import STORAGE
from workers.resharding.index import OPAQUE, Chunk, NewFile, SavedTensor
from workers.resharding.wire import Field, Source, WireError

CHUNK_NBYTES = 512 << 20  # MindSpore cuts larger parameters
CRC_FOOTER_SIZE = 17  # "crc_num", then ten big-endian bytes

# Field numbers of the messages Checkpoint, Checkpoint.Value and TensorProto.
_VALUE = 1
_TAG, _TENSOR = 1, 2
_DIMS, _TENSOR_TYPE, _CONTENT = 1, 2, 3

_CRC_MARK = b"crc_num"
_NO_TENSOR = SavedTensor(OPAQUE, (), ())
_MOST_DIMS = 32  # NumPy has no more
_MOST_VALUES = 1 << 18  # parameters, or chunks of them; more than that is damage


def read_tensors(source: Source, size: int) -> tuple[dict[str, SavedTensor], int | None]:
    """Return the tensors of a file, and the checksum in its footer if there is one.

    Raises:
        WireError: the bytes are no checkpoint, or a torn one.
    """
    stop, crc32 = _footer(source, size)
    tensors: dict[str, list[SavedTensor]] = {}
    last = None
    for number, field in enumerate(wire.fields(source, 0, stop)):
        if number == _MOST_VALUES:
            raise WireError(field.start, f"it has more than {_MOST_VALUES:,} parameters")
        if field.number != _VALUE or field.wire_type != wire.BYTES:
            raise WireError(field.start, "this is no checkpoint; is it a strategy file?")
        name, tensor = _read_value(source, field)
        chunks = tensors.setdefault(name, [])
        if chunks and (name != last or chunks[0]._replace(chunks=tensor.chunks) != tensor):
            raise WireError(field.start, f"{name} comes a second time")
        chunks.append(tensor)
        last = name
    return {name: _checked(name, _joined(chunks)) for name, chunks in tensors.items()}, crc32


def _footer(source: Source, size: int) -> tuple[int, int | None]:
    """Return where the messages end, and the checksum if one follows."""
    start = max(size - CRC_FOOTER_SIZE, 0)
    footer = source[start:size]
    if not footer.startswith(_CRC_MARK):
        return size, None
    return start, int.from_bytes(footer[len(_CRC_MARK) :], "big")


def _read_value(source: Source, value: Field) -> tuple[str, SavedTensor]:
    """Return the name of a parameter, and the one chunk of it that this message holds."""
    name, tensor = None, _NO_TENSOR
    for field in wire.fields(source, value.start, value.stop):
        if field.number == _TAG:
            name = wire.text(source, field)
        elif field.number == _TENSOR and field.wire_type == wire.BYTES:
            tensor = _read_tensor(source, field)
    if name is None:
        raise WireError(value.start, "a parameter has no name")
    return name, tensor


def _read_tensor(source: Source, tensor: Field) -> SavedTensor:
    dtype, dims, content = "", [], Chunk(tensor.stop, 0)
    for field in wire.fields(source, tensor.start, tensor.stop):
        if field.number == _DIMS:
            dims += wire.integers(source, field, most=_MOST_DIMS)
        elif field.number == _TENSOR_TYPE:
            dtype = wire.text(source, field)
        elif field.number == _CONTENT and field.wire_type == wire.BYTES:
            content = Chunk(field.start, field.size)
        if len(dims) > _MOST_DIMS:
            break
    if len(dims) > _MOST_DIMS or min(dims, default=0) < 0:
        raise WireError(tensor.start, f"a tensor has the impossible shape {dims[:_MOST_DIMS]}")
    return SavedTensor(dtype, tuple(dims), (content,))


def _joined(chunks: list[SavedTensor]) -> SavedTensor:
    if len(chunks) == 1:
        return chunks[0]
    return chunks[0]._replace(chunks=tuple(run for chunk in chunks for run in chunk.chunks))


def _checked(name: str, tensor: SavedTensor) -> SavedTensor:
    """Return the tensor with the dims that its content has; refuse content of another size.

    Content of a type that nobody can load is not looked at: it is refused when it is wanted.
    """
    if tensor.dtype not in STORAGE:
        return tensor
    itemsize, nbytes = STORAGE[tensor.dtype].itemsize, tensor.nbytes
    if tensor.dims == (0,) and nbytes == itemsize:
        return tensor._replace(dims=())  # a scalar, as MindSpore 2.0 wrote it
    needed = math.prod(tensor.dims) * itemsize
    in_pieces = len(tensor.chunks) > 1 and any(chunk.nbytes % itemsize for chunk in tensor.chunks)
    if nbytes != needed or in_pieces:
        raise WireError(
            tensor.chunks[0].offset,
            f"{name} has {nbytes} bytes, but {tensor.dtype} of shape"
            f" {list(tensor.dims)} takes {needed}",
        )
    return tensor


def lay_out(
    tensors: Mapping[str, tuple[str, tuple[int, ...]]], chunk_nbytes: int = CHUNK_NBYTES
) -> NewFile:
    """Return a file of these tensors, given as (MindSpore's name of the type, dims)."""
    headers, placed, position = [], {}, 0
    for name, (dtype, dims) in tensors.items():
        nbytes = math.prod(dims) * STORAGE[dtype].itemsize
        chunks = []
        for start in range(0, max(nbytes, 1), chunk_nbytes):
            chunk_size = min(nbytes - start, chunk_nbytes)
            header = _value_header(name, dtype, dims, chunk_size)
            headers.append((position, header))
            chunks.append(Chunk(position + len(header), chunk_size))
            position += len(header) + chunk_size
        placed[name] = SavedTensor(dtype, dims, tuple(chunks))
    return NewFile(tuple(headers), placed, position)


def _value_header(name: str, dtype: str, dims: tuple[int, ...], nbytes: int) -> bytes:
    """Write all that stands before the content of a chunk."""
    tensor = b"".join(wire.number_field(_DIMS, size) for size in dims)
    tensor += wire.bytes_field(_TENSOR_TYPE, dtype.encode())
    tensor += wire.bytes_field_header(_CONTENT, nbytes)
    value = wire.bytes_field(_TAG, name.encode())
    value += wire.bytes_field_header(_TENSOR, len(tensor) + nbytes) + tensor
    return wire.bytes_field_header(_VALUE, len(value) + nbytes) + value
