"""Know the .ckpt format: where the tensors of a file lie, and the headers of a new file.

A file is a row of protobuf messages, one for each parameter, or for each chunk of a parameter of
more than 512 MiB. One small read for each header is all that an index costs.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping

from workers.resharding import wire
from workers.resharding.dtypes import STORAGE
from workers.resharding.index import OPAQUE, Chunk, NewFile, SavedTensor
from workers.resharding.wire import BYTES, END, VARINT, Field, Messages, Source, WireError, key_of

CHUNK_NBYTES = 512 << 20  # MindSpore cuts larger parameters
CRC_FOOTER_SIZE = 17  # "crc_num", then ten big-endian bytes

# Field numbers of the messages Checkpoint, Checkpoint.Value and TensorProto.
_VALUE = 1
_TAG, _TENSOR = 1, 2
_DIMS, _TENSOR_TYPE, _CONTENT = 1, 2, 3

_VALUE_KEY, _TENSOR_KEY = key_of(_VALUE, BYTES), key_of(_TENSOR, BYTES)
_DIM_KEY, _CONTENT_KEY = key_of(_DIMS, VARINT), key_of(_CONTENT, BYTES)
_MESSAGES: Messages = {_VALUE_KEY: {_TENSOR_KEY: {}}}

_CRC_MARK = b"crc_num"
_NO_TENSOR = SavedTensor(OPAQUE, (), ())
_MOST_DIMS = 32  # NumPy has no more
_MOST_VALUES = 1 << 18  # parameters, or chunks of them; more than that is damage
_ITEMSIZES = {name: dtype.itemsize for name, dtype in STORAGE.items()}


def read_tensors(source: Source, size: int) -> tuple[dict[str, SavedTensor], int | None]:
    """Return the tensors of a file, and the checksum in its footer if there is one.

    Raises:
        WireError: the bytes are no checkpoint, or a torn one.
    """
    stop, crc32 = _footer(source, size)
    tensors: dict[str, SavedTensor] = {}
    chunks: dict[str, list[Chunk]] = {}  # of parameters that have several
    last = None
    fields = wire.fields(source, 0, stop, _MESSAGES)
    for count, (key, start, _, _) in enumerate(fields):
        if count == _MOST_VALUES:
            raise WireError(start, f"it has more than {_MOST_VALUES:,} parameters")
        if key != _VALUE_KEY:
            raise WireError(start, "this is no checkpoint; is it a strategy file?")
        name, tensor = _read_value(source, fields, start)
        if name not in tensors:
            tensors[name] = tensor
        elif name == last and tensors[name][:2] == tensor[:2]:
            chunks.setdefault(name, [*tensors[name].chunks]).extend(tensor.chunks)
        else:
            raise WireError(start, f"{name} comes a second time")
        last = name
    for name, several in chunks.items():
        tensors[name] = tensors[name]._replace(chunks=tuple(several))
    return {name: _checked(name, tensor) for name, tensor in tensors.items()}, crc32


def _footer(source: Source, size: int) -> tuple[int, int | None]:
    """Return where the messages end, and the checksum if one follows."""
    start = max(size - CRC_FOOTER_SIZE, 0)
    footer = source[start:size]
    if not footer.startswith(_CRC_MARK):
        return size, None
    return start, int.from_bytes(footer[len(_CRC_MARK) :], "big")


def _read_value(source: Source, fields: Iterator[Field], start: int) -> tuple[str, SavedTensor]:
    """Return the name of a parameter, and the one chunk of it that this message holds."""
    name, tensor = None, _NO_TENSOR
    for field in fields:
        key = field[0]
        if key == _TENSOR_KEY:
            tensor = _read_tensor(source, fields, field)
        elif key == END:
            break
        elif key >> 3 == _TAG:
            name = wire.text(source, field)
    if name is None:
        raise WireError(start, "a parameter has no name")
    return name, tensor


def _read_tensor(source: Source, fields: Iterator[Field], tensor: Field) -> SavedTensor:
    _, begin, end, _ = tensor
    dtype, dims, content = "", [], None
    for field in fields:
        key, start, stop, number = field
        if key == _DIM_KEY:
            dims.append(number)
        elif key == _CONTENT_KEY:
            content = Chunk(start, stop - start)
        elif key == END:
            break
        elif key >> 3 == _TENSOR_TYPE:
            dtype = wire.text(source, field)
        elif key >> 3 == _DIMS:
            dims += wire.integers(source, field, most=_MOST_DIMS)
        if len(dims) > _MOST_DIMS:
            break
    if len(dims) > _MOST_DIMS or (dims and min(dims) < 0):
        raise WireError(begin, f"a tensor has the impossible shape {dims[:_MOST_DIMS]}")
    return SavedTensor(dtype, tuple(dims), (content or Chunk(end, 0),))


def _checked(name: str, tensor: SavedTensor) -> SavedTensor:
    """Return the tensor with the dims that its content has; refuse content of another size.

    Content of a type that nobody can load is not looked at: it is refused when it is wanted.
    """
    dtype, dims, chunks = tensor
    itemsize = _ITEMSIZES.get(dtype)
    if itemsize is None:
        return tensor
    nbytes = chunks[0].nbytes if len(chunks) == 1 else tensor.nbytes
    needed = math.prod(dims) * itemsize
    if dims == (0,) and nbytes == itemsize:
        return tensor._replace(dims=())  # a scalar, as MindSpore 2.0 wrote it
    in_pieces = len(chunks) > 1 and any(chunk.nbytes % itemsize for chunk in chunks)
    if nbytes != needed or in_pieces:
        raise WireError(
            chunks[0].offset,
            f"{name} has {nbytes} bytes, but {dtype} of shape {list(dims)} takes {needed}",
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
