"""Read and write strategy files: the layout of every parameter, as MindSpore's compiler saved it.

A file is protobuf or JSON. A folder with the files of all pipeline stages, or the one file that
MindSpore merged from them, gives the layouts of all stages.
"""

from __future__ import annotations

import json
import re
from collections import defaultdict
from collections.abc import Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from workers.resharding import strategy_proto
from workers.resharding.atomic import atomic_file
from workers.resharding.errors import LayoutError, StrategyFileError
from workers.resharding.layout import Layout
from workers.resharding.wire import WireError

_MERGED, _COMPILED = 1, 2  # current_stage: a merged file has 1, a compiler counts on from 2
_STAGE_PREFIX = re.compile(r"(\d+)-(.+)", re.DOTALL)


def read_strategy_file(path: str | Path) -> dict[str, Layout]:
    """Return the layout of every parameter that a strategy file, or a folder of them, names.

    A parameter that several stages hold under different layouts gets that of the lowest stage:
    each stage holds all of it.

    Args:
        path: a file of one stage, a merged file, or a folder with a file for each stage or for
            each rank (the ranks of a stage all save the same).

    Raises:
        StrategyFileError: a file cannot be read, files contradict each other, or the file of a
            stage is missing.
    """
    path = Path(path)
    found: dict[str, dict[int, Layout]] = defaultdict(dict)  # parameter -> stage -> layout
    for file in _files(path):
        for parameter, layout in parse_strategy(_read_document(file), str(file)):
            known = found[parameter].setdefault(layout.stages[0], layout)
            if known != layout:
                raise StrategyFileError(
                    str(file),
                    f"{parameter} of stage {layout.stages[0]} has the layout ({layout}) here and"
                    f" ({known}) in another file of the folder; keep the files of one run only",
                )
    _check_stages(str(path), found)
    return {parameter: _join_stages(by_stage) for parameter, by_stage in found.items()}


def parse_strategy(document: Mapping[str, Any], source: str) -> Iterator[tuple[str, Layout]]:
    """Yield each parameter of a decoded strategy file, with its layout in one stage.

    Args:
        document: a strategy file in its JSON form; ``tensor_map`` may hold a list for each dim.
        source: names the file in errors.
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


def write_strategy_file(path: str | Path, layouts: Mapping[str, Layout]) -> None:
    """Write layouts as MindSpore does: protobuf, merged if any stage but 0 holds a parameter."""
    merged = any(layout.stages != (0,) for layout in layouts.values())
    document: dict[str, Any] = {
        "current_stage": _MERGED if merged else _COMPILED,
        "parallel_strategy_item": {},
        "parallel_layout_item": {},
    }
    for parameter, layout in layouts.items():
        for stage in layout.stages:
            name = f"{stage}-{parameter}" if merged else parameter
            strategy = {"stage": stage, "parallel_strategy": [list(layout.split_counts)]}
            document["parallel_strategy_item"][name] = strategy
            document["parallel_layout_item"][name] = _layout_item(layout)
    with atomic_file(Path(path)) as file:
        file.write(strategy_proto.encode(document))


def _files(path: Path) -> list[Path]:
    if not path.is_dir():
        return [path]
    files = sorted(file for file in path.iterdir() if file.suffix in (".ckpt", ".json"))
    if not files:
        raise StrategyFileError(str(path), "the folder holds no .ckpt or .json files")
    return files


def _read_document(file: Path) -> Mapping[str, Any]:
    try:
        content = file.read_bytes()
    except OSError as error:
        raise StrategyFileError(str(file), f"it cannot be read: {error.strerror}") from error
    try:
        if content.lstrip().startswith(b"{"):
            document = json.loads(content)
        else:
            document = strategy_proto.decode(content)
    except (ValueError, RecursionError, WireError) as error:
        raise StrategyFileError(
            str(file), f"it is no strategy, in protobuf or JSON ({error}); is it a checkpoint?"
        ) from error
    if not isinstance(document, dict):
        raise StrategyFileError(str(file), "it holds no object")
    return document


def _parse_layout(item: Any, stage: int, parameter: str, source: str) -> Layout:
    where = f"parallel_layout_item.{parameter}"
    if not isinstance(item, Mapping):
        raise StrategyFileError(source, f"{where} is no object")
    tensor_map = [
        _numbers(axes, f"{where}.tensor_map[{dim}]", source) if isinstance(axes, list) else axes
        for dim, axes in enumerate(_list(item.get("tensor_map"), f"{where}.tensor_map", source))
    ]
    flat = [axes for axes in tensor_map if not isinstance(axes, list)]
    _numbers(flat, f"{where}.tensor_map", source)
    try:
        return Layout.from_tensor_map(
            _numbers(item.get("dev_matrix"), f"{where}.dev_matrix", source),
            tensor_map,
            optimizer_shard=_number(item.get("opt_weight_shard_size", 0), where, source),
            stages=(stage,),
            field_size=_number(item.get("field", 0), f"{where}.field", source),
            split_sizes=tuple(
                _numbers(item.get("param_split_shape", []), f"{where}.param_split_shape", source)
            ),
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


def _check_stages(source: str, found: Mapping[str, Mapping[int, Layout]]) -> None:
    """Refuse a set of layouts in which a stage is missing, or has another number of ranks."""
    sizes = {
        stage: layout.stage_size for stages in found.values() for stage, layout in stages.items()
    }
    missing = sorted(set(range(max(sizes))) - set(sizes))
    if missing:
        raise StrategyFileError(
            source,
            f"it is for stages {sorted(sizes)} of a pipeline, stages {missing} are missing; name a"
            " folder with the files of all stages, or the file merged from them",
        )
    for parameter, stages in found.items():
        for layout in stages.values():
            if layout.stage_size != sizes[0]:
                raise StrategyFileError(
                    source, f"{parameter} ({layout}) is not for {sizes[0]} ranks, like the others"
                )


def _join_stages(by_stage: Mapping[int, Layout]) -> Layout:
    lowest = by_stage[min(by_stage)]
    alike = [
        stage
        for stage, layout in sorted(by_stage.items())
        if replace(layout, stages=lowest.stages) == lowest
    ]
    return replace(lowest, stages=tuple(alike))


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
