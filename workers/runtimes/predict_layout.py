"""Read the layouts that ``Model.infer_predict_layout`` returns. Pure: nothing of MindSpore here."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any

from workers.resharding.layout import Layout
from workers.runtimes.runtime import WantedParameter


def parse_predict_layout(
    entry: Sequence[Any], dtype: str, rank: int, group_size: Callable[[str], int]
) -> WantedParameter:
    """Return what a rank must know about one parameter.

    Args:
        entry: the twelve items that MindSpore has for the parameter.
        rank: the rank that asked. With pipeline stages, MindSpore tells each rank about the
            parameters of its own stage.
        group_size: tells how many ranks a group of this name has. A parameter that the
            optimizer divides once more has such a group, "" stands for none.
    """
    device_matrix, tensor_map, slice_shape, field_size = entry[:4]
    optimizer_group, full_shape = entry[5:7]
    parts = [full // part for full, part in zip(full_shape, slice_shape, strict=True)]
    layout = Layout.from_tensor_map(
        device_matrix,
        _per_dim(tensor_map, device_matrix, parts),
        optimizer_shard=group_size(optimizer_group) if optimizer_group else 0,
        stages=(rank // math.prod(device_matrix),),
        field_size=field_size,
    )
    return WantedParameter(layout, tuple(full_shape), dtype)


def _per_dim(
    tensor_map: Sequence[int], device_matrix: Sequence[int], parts: Sequence[int]
) -> list[list[int]]:
    """Group the entries of a tensor map by dim.

    MindSpore writes a dim that several axes split as several entries, so that [-1, 1, 0] may
    belong to two dims. A dim has as many of them as it takes to cut it into its ``parts``.
    """
    entries = iter(tensor_map)
    dims = []
    for wanted in parts:
        dim = [next(entries)]
        while math.prod(device_matrix[-1 - axis] for axis in dim if axis != -1) < wanted:
            dim.append(next(entries))
        dims.append(dim)
    return dims
