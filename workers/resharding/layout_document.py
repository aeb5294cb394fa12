"""Read layouts that are no strategy file: tuples of MindSpore's, and the project's own report.

``Model.infer_predict_layout`` and ``parameter_layout_dict`` give a tuple for each parameter, of 6
items up to MindSpore 2.0, then of 8, and of 12 in 2.10; the first ones never changed.
"""

from __future__ import annotations

import math
import operator
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from typing import Any

from workers.resharding.errors import LayoutError, StrategyFileError
from workers.resharding.layout import Layout

_TUPLE_SIZES = (6, 8, 12)
_REPORT = "parameters"  # the key of what `launcher layout --json` prints
_PREDICT = "predict_layout"  # the key of tuples that were dumped together with others


def is_layout_document(document: Mapping[str, Any]) -> bool:
    """Return whether a decoded JSON file holds layouts of one of these kinds."""
    return _REPORT in document or _PREDICT in document or _is_tuples(document)


def parse_layouts(document: Mapping[str, Any], source: str) -> Iterator[tuple[str, Layout]]:
    """Yield each parameter with its layout; ``source`` names the file in errors.

    Raises:
        StrategyFileError: an entry is damaged.
    """
    report = document.get(_REPORT)
    tuples = document.get(_PREDICT, document)
    entries = report if report is not None else tuples
    if not isinstance(entries, Mapping):
        raise StrategyFileError(source, "it holds no object of parameters")
    for name, entry in entries.items():
        try:
            if report is not None:
                layout = layout_of_report(entry)
            else:
                layout = layout_of_tuple(entry, _unknown)
        except LayoutError as error:
            raise StrategyFileError(source, str(error.of(name))) from error
        except (TypeError, ArithmeticError, ValueError, LookupError, AttributeError) as error:
            raise StrategyFileError(source, f"the layout of {name} is damaged ({error})") from error
        yield name, layout


def layout_of_tuple(
    entry: Sequence[Any], group_size: Callable[[str], int], stage: int = 0
) -> Layout:
    """Return the layout that a tuple of MindSpore's describes.

    Args:
        group_size: tells how many ranks a group has. Item 5 names the group among which the
            optimizer divides the parameter once more.
        stage: of the pipeline; the tuple does not tell it.

    Raises:
        ValueError: it is no such tuple, or of slices that are not of one size.
    """
    if len(entry) not in _TUPLE_SIZES:
        raise ValueError(f"a layout of {_TUPLE_SIZES} items is known, not one of {len(entry)}")
    device_matrix, tensor_map, slice_shape, field_size, uniform, group = entry[:6]
    if not uniform:
        raise ValueError("its slices are not of one size, and it does not tell their sizes")
    rest = {
        "optimizer_shard": group_size(group) if group else 0,
        "stages": (stage,),
        "field_size": field_size,
    }
    per_dim: Sequence[Any] = tensor_map
    if len(tensor_map) > len(slice_shape) and len(entry) > 6:
        parts = [full // part for full, part in zip(entry[6], slice_shape, strict=True)]
        per_dim = _per_dim(tensor_map, device_matrix, parts)
    layout = Layout.from_tensor_map(device_matrix, per_dim, **rest)
    return layout if len(layout.axes) == len(slice_shape) else layout.folded(slice_shape)


def _is_tuples(document: Mapping[str, Any]) -> bool:
    entries = document.values()
    return bool(entries) and all(
        isinstance(entry, list) and len(entry) in _TUPLE_SIZES for entry in entries
    )


def layout_of_report(entry: Mapping[str, Any]) -> Layout:
    """Read an entry of `launcher layout --json`: items 0, 1, 6 and 2 of the tuple, by name."""
    full_shape = entry["full_shape"]
    items = (entry["device_matrix"], entry["tensor_map"], entry["slice_shape"])
    layout = layout_of_tuple((*items, 0, True, "", full_shape, None), _unknown)
    stages = tuple(map(operator.index, entry.get("stages", (0,))))
    if min(stages) < 0:
        raise ValueError(f"it has stages {list(stages)}")
    return replace(layout, stages=stages)


def _unknown(group: str) -> int:
    raise ValueError(f"it has optimizer shards, and a file does not tell the size of group {group}")


def _per_dim(
    tensor_map: Sequence[int], device_matrix: Sequence[int], parts: Sequence[int]
) -> list[list[int]]:
    """Group the entries of a tensor map by dim.

    MindSpore writes a dim that several axes split as several entries, so that [-1, 1, 0] may
    belong to two dims. A dim has as many of them as it takes to cut it into its ``parts``.
    """
    entries = list(tensor_map)
    dims = []
    for wanted in parts:
        dim = [entries.pop(0)]
        while math.prod(device_matrix[-1 - axis] for axis in dim if axis != -1) < wanted:
            dim.append(entries.pop(0))
        dims.append(dim)
    return dims
