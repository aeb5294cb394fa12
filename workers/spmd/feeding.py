"""Decide which part of each input a rank is fed: MindSpore's dataset_strategy. Pure."""

from __future__ import annotations

import math
from collections.abc import Sequence

from workers.resharding.layout import Layout
from workers.spec import FULL_BATCH, DatasetStrategy
from workers.spmd.errors import DatasetStrategyError
from workers.spmd.graph import Value


def input_layouts(
    strategy: DatasetStrategy, inputs: Sequence[Value], devices: int
) -> dict[str, Layout]:
    """Return how ``devices`` ranks divide the inputs of a network, by their names.

    As in MindSpore (virtual_dataset_info.cc) an input is split in one dim at most, and all that
    are split have as many parts. Ranks that are more than these repeat them: rank 4 has the
    part of rank 0 if there are four.

    Args:
        strategy: "full_batch"; "data_parallel", which splits dim 0 of every input over all
            devices; or the number of parts of every dim of every input.

    Raises:
        DatasetStrategyError: MindSpore would refuse it.
    """
    if strategy == FULL_BATCH:
        return {}
    if isinstance(strategy, str):
        strategy = [[devices, *[1] * len(x.shape[1:])] if x.shape else [] for x in inputs]
    if len(strategy) != len(inputs):
        names = ", ".join(value.users_name for value in inputs)
        raise DatasetStrategyError(
            f"it is of {len(strategy)} inputs, the network has {len(inputs)}: {names}"
        )
    for value, entry in zip(inputs, strategy, strict=True):
        _check_entry(value, entry)
    matrix = max(strategy, key=len, default=())  # the first of the longest
    parts = {count for entry in strategy for count in entry if count > 1}
    if len(parts) > 1:
        raise DatasetStrategyError(f"inputs are split into {' and '.join(map(str, sorted(parts)))}")
    if not parts <= set(matrix):
        reason = "the input with the most dims is whole where others are split"
        raise DatasetStrategyError(reason)
    if devices % math.prod(matrix):
        raise DatasetStrategyError(f"{devices} ranks cannot have {math.prod(matrix)} parts")
    repeated = devices // math.prod(matrix)
    split = next((axis for axis, count in enumerate(matrix, 1) if count > 1), 0)
    return {
        value.name: Layout((repeated, *matrix), tuple((split,) * (count > 1) for count in entry))
        for value, entry in zip(inputs, strategy, strict=True)
    }


def _check_entry(value: Value, entry: Sequence[int]) -> None:
    """Refuse numbers that do not fit the shape of an input."""
    told = f"{value.users_name} of shape {list(value.shape)}: {list(entry)}"
    if len(entry) != len(value.shape):
        raise DatasetStrategyError(f"{told} has {len(entry)} numbers for {len(value.shape)} dims")
    if sum(count > 1 for count in entry) > 1:
        raise DatasetStrategyError(f"{told} splits more than one dim")
    for size, count in zip(value.shape, entry, strict=True):
        if size % count:
            raise DatasetStrategyError(f"{told} does not divide {size} by {count}")
