"""Every sample is the share of one rank, whether the launcher deals or the user's callable."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from workers.data import batches_of
from workers.data_files import DataFiles
from workers.dealing import (
    Dealt,
    Sharded,
    delivered_before,
    own_batches,
    require_row_for_each_sample,
    share_of,
)
from workers.errors import InputError
from workers.spec import WorkerSpec
from workers.user_data import make_data

DATA = """
import numpy as np

SAMPLES = np.arange(7)

def plain(batch_size):
    return [SAMPLES[start:start + batch_size] for start in range(0, 7, batch_size)]

def each_nth(num_shards, shard_id):
    return [SAMPLES[shard_id::num_shards]]

def blocks(num_shards, shard_id):
    return [np.array_split(SAMPLES, num_shards)[shard_id]]

class Dataset:
    def __init__(self, samples, children=()):
        self.samples, self.children = samples, children
    def get_dataset_size(self):
        return len(self.samples)
    def __iter__(self):
        return iter([self.samples])

class BatchDataset(Dataset):
    pass

def filled_up(num_shards, shard_id):
    most = -(-7 // num_shards)
    samples = np.resize(SAMPLES, most * num_shards)[shard_id::num_shards]
    return BatchDataset(samples, [Dataset(samples)])
"""

MakeSpec = Callable[..., WorkerSpec]


@pytest.fixture
def make_spec(tmp_path: Path) -> MakeSpec:
    """Return a maker of specs of three ranks that share the data of a function of DATA."""
    (tmp_path / "data.py").write_text(DATA)

    def make(rank: int, data: str, **fields: Any) -> WorkerSpec:
        return WorkerSpec(
            rank=rank,
            rank_size=3,
            device_id=rank,
            server_id="localhost",
            device="cpu",
            network="net:make",
            predict_data=f"{tmp_path}/data.py:{data}",
            parallel_mode="data_parallel",
            **fields,
        )

    return make


def whole(make_spec: MakeSpec, data: str, **fields: Any) -> dict[int, int]:
    """Return row -> sample, as the shares of all ranks have it; a row may come only once."""
    found: dict[int, int] = {}
    for rank in range(3):
        spec = make_spec(rank, data, **fields)
        for (batch,), rows in share_of(spec).of(batches_of(make_data(spec), data)):
            for index, sample in enumerate(batch):
                row = rows.start + index * rows.step
                assert row not in found
                found[row] = int(sample)
    return found


@pytest.mark.parametrize("batch_size", [1, 2, 3, 8])
def test_batches_are_dealt_whole_to_one_rank_each(make_spec: MakeSpec, batch_size: int) -> None:
    found = whole(make_spec, "plain", batch_size=batch_size)
    assert found == {row: row for row in range(7)}


def test_a_callable_that_takes_shards_gives_each_rank_its_own(make_spec: MakeSpec) -> None:
    assert whole(make_spec, "each_nth") == {row: row for row in range(7)}


def test_a_mindspore_dataset_is_asked_how_many_samples_it_has(make_spec: MakeSpec) -> None:
    found = whole(make_spec, "filled_up")
    assert found == {**{row: row for row in range(7)}, 7: 0, 8: 1}
    share = share_of(make_spec(2, "filled_up"))
    assert isinstance(share, Sharded)
    assert share.samples == 7  # so that rows 7 and 8 can be told from the others
    assert share_of(make_spec(2, "each_nth")).samples is None


def test_a_shard_knows_how_many_samples_a_batch_of_the_whole_has(make_spec: MakeSpec) -> None:
    share = share_of(make_spec(1, "each_nth"))
    ((batch,), _), = share.of(batches_of(make_data(make_spec(1, "each_nth")), "each_nth"))
    assert (len(batch), share.batch_rows) == (2, 7)
    assert share_of(make_spec(1, "plain")).batch_rows is None


def test_shards_that_are_blocks_are_refused(make_spec: MakeSpec) -> None:
    with pytest.raises(InputError, match="shard 0 of 3 does not start with samples 0, 3"):
        whole(make_spec, "blocks")


def test_ranks_that_see_different_data_have_different_checksums(make_spec: MakeSpec) -> None:
    shares = [Dealt(make_spec(0, "plain")) for _ in range(3)]
    for share, values in zip(shares, ([[1, 2], [3]], [[1, 2], [3]], [[1, 2], [4]])):
        list(share.of((np.array(value),) for value in values))
    assert shares[0].seen == shares[1].seen != shares[2].seen
    assert [share.samples for share in shares] == [3, 3, 3]


def test_a_tensor_is_cut_into_a_part_for_each_rank() -> None:
    parts = [len(x) for (x,) in batches_of(np.arange(7), "data", parts=3)]
    assert parts == [3, 3, 1]
    assert [len(x) for (x,) in batches_of(np.arange(7), "data", batch_size=4)] == [4, 3]
    pairs = list(batches_of((np.arange(4), np.arange(4)), "data", batch_size=2))
    np.testing.assert_array_equal(pairs[1], [[2, 3], [2, 3]])


def test_outputs_without_a_row_for_each_sample_cannot_be_shared() -> None:
    batch = (np.zeros((4, 2)),)
    require_row_for_each_sample("net", [np.zeros((4, 3))], batch)
    with pytest.raises(InputError, match="output 1 has shape .2,. for 4 samples"):
        require_row_for_each_sample("net", [np.zeros(4), np.zeros(2)], batch)


@pytest.mark.parametrize("first", range(5))
def test_what_an_earlier_run_has_delivered_is_left_out(make_spec: MakeSpec, first: int) -> None:
    # batches of 2 of 7 samples: the first batch to come is number ``first``
    found = whole(make_spec, "plain", batch_size=2, first_batch=first)
    assert found == {row: row for row in range(2 * first, 7)}
    delivered = [delivered_before(make_spec(rank, "plain", first_batch=first)) for rank in range(3)]
    assert sum(delivered) == first


def test_ranks_that_read_files_go_on_with_their_own_batches(
    make_spec: MakeSpec, tmp_path: Path
) -> None:
    np.save(tmp_path / "x.npy", np.arange(7))
    found = {}
    for rank in range(3):
        spec = replace(make_spec(rank, ""), predict_data=f"{tmp_path}/x.npy", batch_size=1)
        files, spec = DataFiles(spec.predict_data, 1), replace(spec, first_batch=4)
        numbers = own_batches(spec, len(files))
        for (batch,), rows in share_of(spec).of(files.read_ahead(numbers)):
            found[rows.start] = int(batch[0])
    assert found == {4: 4, 5: 5, 6: 6}
