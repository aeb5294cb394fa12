"""The batches that a rank runs the network on, whoever cuts them."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
from mindspore import nn

from workers.data import DataError
from workers.runtimes.user_code import make_batches
from workers.spec import WorkerSpec

MakeSpec = Callable[..., WorkerSpec]

DATA = """
import numpy as np

SAMPLES = np.arange(6, dtype=np.float32).reshape(3, 2)

def whole():
    return SAMPLES

def labelled():
    return SAMPLES, np.arange(3)

def each_nth(num_shards, shard_id):
    return SAMPLES[shard_id::num_shards]

def one_by_one(num_shards, shard_id):
    return np.split(SAMPLES, 3)[shard_id::num_shards]
"""


@pytest.fixture
def make_shared(make_spec: MakeSpec, tmp_path: Path) -> MakeSpec:
    """Return a maker of specs of five ranks that share the data of a function of DATA."""
    (tmp_path / "data.py").write_text(DATA)

    def make(rank: int, data: str, **fields: object) -> WorkerSpec:
        shared = {"rank": rank, "rank_size": 5, "parallel_mode": "data_parallel"}
        return replace(make_spec(**shared, **fields), predict_data=f"{tmp_path}/data.py:{data}")

    return make


def sizes(spec: WorkerSpec) -> list[int]:
    """Return how many samples each batch has."""
    _, batches = make_batches(spec, nn.ReLU())
    return [len(batch[0]) for batch in batches]


def test_one_array_is_cut_for_the_ranks_that_share_it(make_shared: MakeSpec) -> None:
    assert sizes(make_shared(0, "whole")) == [1, 1, 1]


def test_a_batch_to_evaluate_stays_what_one_process_has(make_shared: MakeSpec) -> None:
    assert sizes(make_shared(0, "labelled", task="eval", metrics=("mae",))) == [3]
    named = make_shared(0, "labelled", task="eval", metrics=("mae",), batch_size=2)
    assert sizes(named) == [2, 1]


@pytest.mark.parametrize("data", ["each_nth", "one_by_one"])
def test_a_shard_without_samples_compiles_for_those_of_the_whole(
    make_shared: MakeSpec, data: str
) -> None:
    assert sizes(make_shared(2, data)) == [1]
    (inputs,), batches = make_batches(make_shared(4, data), nn.ReLU())
    assert inputs.shape[1:] == (2,)
    assert list(batches) == []


def test_data_with_more_inputs_than_the_network_takes_are_refused(make_shared: MakeSpec) -> None:
    said = r"a batch is of 2 inputs, where construct.* says: too many .*labels go with --task eval"
    with pytest.raises(DataError, match=said):
        make_batches(make_shared(0, "labelled"), nn.ReLU())
