"""Translate between the bytes of a protobuf strategy file and the document of a JSON one.

What the document means is for ``strategy_document`` to know. Unlike a JSON file, a protobuf one
has a ``tensor_map`` with a list for each dim where several axes split a dim.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from workers.resharding import wire
from workers.resharding.wire import Field, WireError

# Field numbers of ParallelStrategyMap; an item is (name = 1, content = 2) in both lists.
_CURRENT_STAGE, _STRATEGY_ITEM, _LAYOUT_ITEM = 1, 2, 3
_NAME, _CONTENT = 1, 2
_STAGE, _STRATEGY = 1, 2  # of ParallelStrategys
_LISTS = {1: "dev_matrix", 2: "tensor_map", 3: "param_split_shape", 4: "indices_offset"}
_NUMBERS = {5: "field", 6: "opt_weight_shard_step", 7: "opt_weight_shard_size"}


def decode(content: bytes) -> dict[str, Any]:
    """Return the document of a protobuf strategy file.

    Raises:
        WireError: the bytes are not such a file.
    """
    document: dict[str, Any] = {"parallel_strategy_item": {}, "parallel_layout_item": {}}
    for field in wire.fields(content, 0, len(content)):
        number = field[0] >> 3
        if number == _CURRENT_STAGE:
            document["current_stage"] = wire.integer(field)
        elif number == _STRATEGY_ITEM:
            name, body = _item(content, field)
            document["parallel_strategy_item"][name] = _decode_strategy(content, body)
        elif number == _LAYOUT_ITEM:
            name, body = _item(content, field)
            document["parallel_layout_item"][name] = _decode_layout(content, body)
    return document


def encode(document: Mapping[str, Any]) -> bytes:
    """Return the protobuf bytes of a document."""
    out = [wire.number_field(_CURRENT_STAGE, document["current_stage"])]
    for name, item in document["parallel_strategy_item"].items():
        strategies = b"".join(_dims(_STRATEGY, dims) for dims in item["parallel_strategy"])
        body = wire.number_field(_STAGE, item["stage"]) + strategies
        out.append(_encode_item(_STRATEGY_ITEM, name, body))
    for name, item in document["parallel_layout_item"].items():
        out.append(_encode_item(_LAYOUT_ITEM, name, _encode_layout(item)))
    return b"".join(out)


def _item(content: bytes, field: Field) -> tuple[str, Field]:
    """Return the name of an item, and the field that holds the rest."""
    parts = {part[0] >> 3: part for part in _message(content, field)}
    if _NAME not in parts or _CONTENT not in parts:
        raise WireError(field[1], "an item has no name or no content")
    return wire.text(content, parts[_NAME]), parts[_CONTENT]


def _decode_strategy(content: bytes, field: Field) -> dict[str, Any]:
    strategy: dict[str, Any] = {"parallel_strategy": []}
    for part in _message(content, field):
        number = part[0] >> 3
        if number == _STAGE:
            strategy["stage"] = wire.integer(part)
        elif number == _STRATEGY:
            strategy["parallel_strategy"].append(_decode_dims(content, part))
    return strategy


def _decode_layout(content: bytes, field: Field) -> dict[str, Any]:
    lists: dict[str, list[list[int]]] = {name: [] for name in _LISTS.values()}
    layout: dict[str, Any] = {}
    for part in _message(content, field):
        number = part[0] >> 3
        if number in _LISTS:
            lists[_LISTS[number]].append(_decode_dims(content, part))
        elif number in _NUMBERS:
            layout[_NUMBERS[number]] = wire.integer(part)
    for name, values in lists.items():
        layout[name] = values[0] if values else []
    if len(lists["tensor_map"]) > 1:
        # One list for each dim; an empty one only makes a single dim look like several.
        layout["tensor_map"] = [axes for axes in lists["tensor_map"] if axes]
    return layout


def _decode_dims(content: bytes, field: Field) -> list[int]:
    numbers: list[int] = []
    for part in _message(content, field):
        if part[0] >> 3 == 1:
            numbers += wire.integers(content, part)
    return numbers


def _message(content: bytes, field: Field) -> Iterator[Field]:
    key, start, stop, _ = field
    if key & 7 != wire.BYTES:
        raise WireError(start, f"field {key >> 3} is no message")
    return wire.fields(content, start, stop)


def _encode_item(number: int, name: str, body: bytes) -> bytes:
    item = wire.bytes_field(_NAME, name.encode()) + wire.bytes_field(_CONTENT, body)
    return wire.bytes_field(number, item)


def _encode_layout(item: Mapping[str, Any]) -> bytes:
    tensor_map = item["tensor_map"]
    if any(isinstance(entry, list) for entry in tensor_map):
        maps = tensor_map if len(tensor_map) > 1 else [*tensor_map, []]
    else:
        maps = [tensor_map]
    lists = {**{name: [item.get(name, [])] for name in _LISTS.values()}, "tensor_map": maps}
    out = [_dims(number, dims) for number, name in _LISTS.items() for dims in lists[name]]
    out += [wire.number_field(number, item[name]) for number, name in _NUMBERS.items()]
    return b"".join(out)


def _dims(number: int, dims: list[int]) -> bytes:
    return wire.bytes_field(number, b"".join(wire.number_field(1, size) for size in dims))
