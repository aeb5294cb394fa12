"""Make the data that the user named: open files, or call a callable with what it wants to know."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from typing import Any

from workers.data_files import DataFiles, is_data_file
from workers.entry_point import blaming, load_entry_point
from workers.spec import WorkerSpec

SHARD_ARGUMENTS = ("num_shards", "shard_id")


def make_data(spec: WorkerSpec) -> Any:
    """Return the files, or what the callable returns.

    That is given ``batch_size`` if it takes that and the job has one, and ``num_shards`` and
    ``shard_id`` if the ranks share the data and it takes both.
    """
    if is_data_file(spec.predict_data):
        return DataFiles(spec.predict_data, spec.batch_size)
    with blaming(spec.predict_data):
        return _call(spec, spec.rank_size, spec.rank)


def is_sharded(spec: WorkerSpec) -> bool:
    """Say whether a callable itself gives each rank its share."""
    if not spec.shares_data or is_data_file(spec.predict_data):
        return False
    function = load_entry_point(spec.predict_data, spec.search_path)
    return all(_takes(function, name) for name in SHARD_ARGUMENTS)


def make_whole_data(spec: WorkerSpec) -> Any:
    """Return what the callable of sharded data returns when there is one shard."""
    return _call(spec, num_shards=1, shard_id=0)


def samples_of_all_shards(spec: WorkerSpec) -> int | None:
    """Return how many samples a sharded mindspore.dataset has; None: it is something else.

    MindSpore fills up shards with samples from the start until all are of one size: what came
    twice can only be told from the size of the whole, which is asked of it without reading.
    """
    node = make_whole_data(spec)
    if not hasattr(node, "get_dataset_size"):
        return None
    while node.children:
        (node, *others), batch = node.children, node
        if type(batch).__name__.endswith("BatchDataset") and not others:
            return int(node.get_dataset_size())
    return None


def _call(spec: WorkerSpec, num_shards: int, shard_id: int) -> Any:
    function = load_entry_point(spec.predict_data, spec.search_path)
    offered: dict[str, int] = {}
    if spec.batch_size is not None:
        offered["batch_size"] = spec.batch_size
    if is_sharded(spec):
        offered |= dict(zip(SHARD_ARGUMENTS, (num_shards, shard_id), strict=True))
    return function(**{name: value for name, value in offered.items() if _takes(function, name)})


def _takes(function: Callable[..., Any], name: str) -> bool:
    try:
        return name in inspect.signature(function).parameters
    except ValueError:  # some built-in functions do not tell
        return False
