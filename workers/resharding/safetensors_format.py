"""Know the safetensors format: where the tensors of a file lie, and the header of a new file.

Eight bytes with the length of a JSON header, the header, then the content of all tensors.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from typing import Any

from workers.resharding.dtypes import STORAGE
from workers.resharding.index import Chunk, NewFile, SavedTensor
from workers.resharding.wire import Source, WireError

_MOST_HEADER = 100_000_000  # bytes; the limit of the safetensors library
_LENGTH_SIZE = 8
_METADATA = "__metadata__"
_CRC, _INT4 = "crc_num", "Int4"  # what MindSpore writes into the metadata
_DTYPES = {
    "BOOL": "Bool",
    "I8": "Int8",
    "I16": "Int16",
    "I32": "Int32",
    "I64": "Int64",
    "U8": "UInt8",
    "U16": "UInt16",
    "U32": "UInt32",
    "U64": "UInt64",
    "BF16": "BFloat16",
    "F16": "Float16",
    "F32": "Float32",
    "F64": "Float64",
    "C64": "Complex64",
}
_NAMES = {name: tag for tag, name in _DTYPES.items()} | {_INT4: "I8"}


def read_tensors(source: Source, size: int) -> tuple[dict[str, SavedTensor], int | None]:
    """Return the tensors of a file in their order, and the checksum in its header if there is one.

    Raises:
        WireError: the bytes are no safetensors file, or a torn one.
    """
    start = _LENGTH_SIZE + int.from_bytes(source[0 : min(_LENGTH_SIZE, size)], "little")
    if size < start or start > _MOST_HEADER:
        raise WireError(0, f"the header is said to end at byte {start} of {size}")
    try:
        header = json.loads(source[_LENGTH_SIZE:start], object_pairs_hook=_unique)
    except (ValueError, RecursionError) as error:
        raise WireError(_LENGTH_SIZE, f"the header is no JSON ({error})") from error
    metadata = header.pop(_METADATA, {}) if isinstance(header, dict) else None
    if not isinstance(metadata, dict):
        raise WireError(_LENGTH_SIZE, "the header holds no object")
    try:
        "".join(header).encode()
    except UnicodeEncodeError as error:  # half a pair of surrogates, which JSON can write
        raise WireError(_LENGTH_SIZE, "the name of a tensor is no text") from error
    entries = [
        (name, *_parse(name, entry, metadata.get(name), start)) for name, entry in header.items()
    ]
    entries.sort(key=lambda entry: entry[3])
    position = start
    for name, _, _, chunk in entries:
        if chunk.offset != position:
            raise WireError(position, f"{name} does not begin where the tensor before it ends")
        position += chunk.nbytes
    if position != size:
        raise WireError(position, f"the tensors end at byte {position}, the file at byte {size}")
    return {name: SavedTensor(dtype, dims, (chunk,)) for name, dtype, dims, chunk in entries}, _crc(
        metadata
    )


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    document = dict(pairs)
    if len(document) < len(pairs):
        raise ValueError("a name comes a second time")
    return document


def _parse(
    name: str, entry: Any, mark: Any, start: int
) -> tuple[str, tuple[int, ...], Chunk]:
    """Return type, dims and place of a tensor; ``mark`` is what the metadata says of it."""
    entry = entry if isinstance(entry, dict) else {}
    dims, bounds, tag = entry.get("shape"), entry.get("data_offsets"), entry.get("dtype")
    if not (_are_sizes(dims) and _are_sizes(bounds) and len(bounds) == 2 and isinstance(tag, str)):
        raise WireError(_LENGTH_SIZE, f"the entry of {name!r} is damaged")
    dtype = _INT4 if mark == _INT4 else _DTYPES.get(tag, tag)
    chunk = Chunk(start + bounds[0], bounds[1] - bounds[0])
    needed = math.prod(dims) * STORAGE[dtype].itemsize if dtype in STORAGE else chunk.nbytes
    if chunk.nbytes != needed or chunk.nbytes < 0:
        raise WireError(
            chunk.offset,
            f"{name} has {chunk.nbytes} bytes, but {dtype} of shape {dims} takes {needed}",
        )
    return dtype, tuple(dims), chunk


def _are_sizes(value: Any) -> bool:
    return (
        isinstance(value, list)
        and len(value) <= 32
        and all(type(size) is int and 0 <= size < 1 << 63 for size in value)
    )


def _crc(metadata: Mapping[str, Any]) -> int | None:
    try:
        return int(metadata[_CRC]) if _CRC in metadata else None
    except (TypeError, ValueError) as error:
        raise WireError(_LENGTH_SIZE, f"{_CRC} {metadata[_CRC]!r} is no number") from error


def lay_out(tensors: Mapping[str, tuple[str, tuple[int, ...]]]) -> NewFile:
    """Return a file of these tensors, given as (MindSpore's name of the type, dims).

    The largest elements come first, so that each tensor is aligned; MindSpore asks for a header
    in the order of the content.

    Raises:
        ValueError: safetensors has no such type.
    """
    metadata = {"format": "ms"}
    header: dict[str, Any] = {_METADATA: metadata}
    position, bounds = 0, {}
    for name in sorted(tensors, key=lambda name: (-STORAGE[tensors[name][0]].itemsize, name)):
        dtype, dims = tensors[name]
        if dtype not in _NAMES:
            raise ValueError(f"{name}: safetensors files hold no {dtype}; write .ckpt files")
        if dtype == _INT4:
            metadata[name] = _INT4
        end = position + math.prod(dims) * STORAGE[dtype].itemsize
        header[name] = {
            "dtype": _NAMES[dtype],
            "shape": list(dims),
            "data_offsets": [position, end],
        }
        bounds[name] = (position, end)
        position = end
    text = json.dumps(header, ensure_ascii=False).encode()
    text += b" " * (-len(text) % 8)  # the content begins aligned
    start = _LENGTH_SIZE + len(text)
    placed = {
        name: SavedTensor(*tensors[name], (Chunk(start + first, last - first),))
        for name, (first, last) in bounds.items()
    }
    return NewFile(((0, len(text).to_bytes(8, "little") + text),), placed, start + position)
