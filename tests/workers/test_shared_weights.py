"""Weights that all ranks of a host hold: read by one of them, seen by all, changed by none."""

from __future__ import annotations

import uuid
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest

from workers.resharding.checkpoint import open_checkpoint
from workers.resharding.checkpoint_file import write_checkpoint
from workers.resharding.execute import execute
from workers.resharding.layout import Layout
from workers.resharding.plan import plan_rank
from workers.runtimes.runtime import WantedParameter
from workers.shared_weights import read_once
from workers.spec import WorkerSpec

WEIGHTS = {"w": np.arange(12, dtype=np.float32).reshape(3, 4), "b": np.ones(3, np.float16)}
RANKS = 3


def spec_of(rank: int, job_id: str = "", **fields: object) -> WorkerSpec:
    values: dict[str, object] = {
        "rank": rank,
        "rank_size": RANKS,
        "device_id": rank,
        "server_id": "localhost",
        "device": "cpu",
        "network": "net:make",
        "predict_data": "net:data",
        "parallel_mode": "data_parallel",
        "job_id": job_id,
    }
    return WorkerSpec(**(values | fields))  # type: ignore[arg-type]


def test_one_rank_reads_and_what_a_rank_writes_is_its_own(tmp_path: Path) -> None:
    write_checkpoint(tmp_path / "w.ckpt", WEIGHTS)
    checkpoint = open_checkpoint(str(tmp_path / "w.ckpt"))
    wanted = {
        name: WantedParameter(Layout((RANKS,), ((),) * value.ndim), value.shape, dtype)
        for (name, value), dtype in zip(WEIGHTS.items(), ("Float32", "Float16"), strict=True)
    }
    job_id = uuid.uuid4().hex
    readers: list[int] = []

    def load(rank: int) -> tuple[dict[str, np.ndarray], int]:
        plan = plan_rank(checkpoint, wanted, rank)

        def read(memory: np.ndarray) -> dict[str, np.ndarray]:
            readers.append(rank)
            return execute(plan, memory=memory)

        return read_once(spec_of(rank, job_id), plan, read)

    with ThreadPoolExecutor(RANKS) as threads:
        loaded = list(threads.map(load, range(RANKS)))
    assert readers == [0]
    assert [bytes_read for _, bytes_read in loaded] == [4 * 12 + 2 * 3, 0, 0]
    loaded[1][0]["w"][:] = 0
    for rank in (0, 2):
        for name, value in WEIGHTS.items():
            np.testing.assert_array_equal(loaded[rank][0][name], value)
            assert loaded[rank][0][name].ctypes.data % 64 == 0  # MindSpore takes it without a copy


@pytest.mark.parametrize(
    ("fields", "shared"),
    [
        ({}, True),
        ({"one_host": False}, False),
        ({"device": "single"}, False),
        ({"parallel_mode": "semi_auto_parallel"}, False),
        ({"rank_size": 1}, False),
    ],
)
def test_weights_are_shared_by_ranks_of_one_host(fields: dict[str, object], shared: bool) -> None:
    assert spec_of(0, **fields).shares_weights == shared
