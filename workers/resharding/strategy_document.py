"""Translate between a decoded strategy file and layouts: the only module that knows its keys.

A document has the form of MindSpore's JSON strategy files. Where several axes of the device matrix
split one dim, a ``tensor_map`` may hold a list for each dim.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import replace
from typing import Any

from workers.resharding.errors import LayoutError, StrategyFileError
from workers.resharding.layout import Layout

_MERGED, _COMPILED = 1, 2  # current_stage: a merged file has 1, a compiler counts on from 2
_STAGE_PREFIX = re.compile(r"([0-9]{1,5})-(.+)", re.DOTALL)  # of every name in a merged file


def parse_strategy(document: Mapping[str, Any], source: str) -> Iterator[tuple[str, Layout]]:
    """Yield each parameter of a decoded strategy file, with its layout in one stage.

    Args:
        source: names the file in errors.

    Raises:
        StrategyFileError: the document is none of a strategy file, or a layout cannot be.
    """
    items = _object(document, "parallel_layout_item", source)
    operators = _object(document, "parallel_strategy_item", source)
    if not items:
        raise StrategyFileError(source, "it holds no layouts; was it compiled in parallel?")
    stages = {
        _number(_object(operators, name, source).get("stage"), f"stage of {name}", source)
        for name in operators
    }
    prefixes = [_STAGE_PREFIX.fullmatch(name) for name in items]
    merged = document.get("current_stage") == _MERGED and all(prefixes)
    if len(stages) > 1 and not merged:
        raise StrategyFileError(source, f"it mixes the stages {sorted(stages)}; merge them again")
    for (name, item), prefix in zip(items.items(), prefixes):
        if merged and prefix is not None:
            stage, parameter = int(prefix[1]), prefix[2]
        else:
            stage, parameter = min(stages, default=0), name
        yield parameter, _parse_layout(item, stage, parameter, source)


def strategy_document(layouts: Mapping[str, Layout]) -> dict[str, Any]:
    """Return the document of layouts; merged if any stage but 0 holds a parameter."""
    merged = any(layout.stages != (0,) for layout in layouts.values())
    strategies, items = {}, {}
    for parameter, layout in layouts.items():
        for stage in layout.stages:
            name = f"{stage}-{parameter}" if merged else parameter
            strategies[name] = {"stage": stage, "parallel_strategy": [list(layout.split_counts)]}
            items[name] = _layout_item(layout)
    return {
        "current_stage": _MERGED if merged else _COMPILED,
        "parallel_strategy_item": strategies,
        "parallel_layout_item": items,
    }


def _parse_layout(item: Any, stage: int, parameter: str, source: str) -> Layout:
    def numbers(key: str, default: Any = None) -> list[int]:
        return _numbers(item.get(key, default), f"{where}.{key}", source)

    def number(key: str) -> int:
        return _number(item.get(key, 0), f"{where}.{key}", source)

    where = f"parallel_layout_item.{parameter}"
    if not isinstance(item, Mapping):
        raise StrategyFileError(source, f"{where} is no object")
    tensor_map = [
        (_numbers if isinstance(axes, list) else _number)(axes, f"{where}.tensor_map", source)
        for axes in _list(item.get("tensor_map"), f"{where}.tensor_map", source)
    ]
    shape = tuple(numbers("tensor_shape", []))
    try:
        return Layout.from_tensor_map(
            numbers("dev_matrix"),
            tensor_map,
            expanded_shape=shape if len(shape) == len(tensor_map) else (),
            optimizer_shard=number("opt_weight_shard_size"),
            stages=(stage,),
            field_size=number("field"),
            split_sizes=tuple(numbers("param_split_shape", [])),
        )
    except LayoutError as error:
        raise StrategyFileError(source, str(error.of(parameter))) from error


def _layout_item(layout: Layout) -> dict[str, Any]:
    """Return the document of one layout. The inverse of ``_parse_layout``."""
    return {
        "dev_matrix": list(layout.device_matrix),
        "tensor_map": layout.nested_tensor_map,
        "param_split_shape": list(layout.split_sizes),
        "field": layout.field_size,
        "opt_weight_shard_step": _optimizer_step(layout),
        "opt_weight_shard_size": layout.optimizer_shard,
    }


def _optimizer_step(layout: Layout) -> int:
    """Return the distance of ranks in an optimizer group, as MindSpore counts (rounded down)."""
    if layout.optimizer_shard == 0:
        return 0
    parts = replace(layout, optimizer_shard=0, stages=(0,)).regions(layout.split_counts)
    replicas = [rank for rank, part in parts.items() if part == parts[0]]
    group = replicas if layout.optimizer_shard == -1 else replicas[: layout.optimizer_shard]
    return (group[-1] - group[0]) // max(len(group) - 1, 1)


def _object(document: Any, key: str, source: str) -> Mapping[str, Any]:
    value = document.get(key, {}) if isinstance(document, Mapping) else None
    if not isinstance(value, Mapping):
        raise StrategyFileError(source, f"{key} is no object")
    return value


def _list(value: Any, where: str, source: str) -> list[Any]:
    if not isinstance(value, list):
        raise StrategyFileError(source, f"{where} is {value!r}, not a list")
    return value


def _numbers(value: Any, where: str, source: str) -> list[int]:
    return [_number(entry, where, source) for entry in _list(value, where, source)]


def _number(value: Any, where: str, source: str) -> int:
    if type(value) is not int:
        raise StrategyFileError(source, f"{where} holds {value!r}, not a whole number")
    return value
