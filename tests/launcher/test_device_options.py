"""What a job says about devices reaches the ranks, or is refused before one is started."""

from __future__ import annotations

from typing import Any

import pytest

from launcher.device_options import device_options, hccl_time_limits, require_possible
from launcher.errors import JobError
from launcher.job import Job
from launcher.job_file import load_job
from workers.spec import DeviceOptions


def job(**keys: Any) -> Job:
    return load_job(None, {"network": "net:make", "predict_data": "net:data", **keys})


def test_a_plain_job_leaves_everything_to_mindspore() -> None:
    assert device_options(job()) == DeviceOptions()


def test_options_keep_the_names_that_mindspore_has_for_them() -> None:
    given = {
        "auto_parallel_cell": True,
        "search_mode": "sharding_propagation",
        "pipeline_stages": 2,
        "dataset_strategy": "data_parallel",
        "strategy_ckpt_load_file": "/predict.ckpt",
        "jit_level": "O1",
        "max_device_memory": "30.5GB",
        "load_before_init": True,
    }
    assert device_options(job(**given)) == DeviceOptions(**given)


@pytest.mark.parametrize(
    "keys",
    [
        {"jit_level": "O3"},
        {"max_device_memory": "30"},
        {"pipeline_stages": 0},
        {"dataset_strategy": "half_batch"},
        {"dataset_strategy": "[[0]]"},
        {"dataset_strategy": [[4, True]]},
        {"dataset_strategy": 4},
    ],
)
def test_what_mindspore_would_refuse_is_refused(keys: dict[str, Any]) -> None:
    with pytest.raises(JobError, match=next(iter(keys)).replace("_", "-")):
        job(**keys)


def test_a_strategy_that_is_none_is_told_once_with_those_that_there_are() -> None:
    with pytest.raises(JobError) as caught:
        job(dataset_strategy="data-parallel")
    assert str(caught.value) == (
        "command line: --dataset-strategy: it is no strategy of a dataset; write full_batch,"
        " data_parallel, or how many parts each dim of each input has, [[4, 1], [4]]"
    )


def test_the_parts_of_the_inputs_may_come_as_json() -> None:
    assert job(dataset_strategy="[[4, 1], [4]]").dataset_strategy == ((4, 1), (4,))


@pytest.mark.parametrize(
    "keys, runtime, reason",
    [
        ({"pipeline_stages": 3}, "ascend", "3 do not divide 8 ranks"),
        ({"pipeline_stages": 3}, "simulated", "3 do not divide 8 ranks"),
        ({"pipeline_stages": 2, "parallel_mode": "data_parallel"}, "simulated", "whole network"),
        ({"parallel_mode": "auto_parallel"}, "simulated", "on devices only"),
        ({"dataset_strategy": "data_parallel"}, "ascend", "only simulated ranks divide"),
    ],
)
def test_what_the_ranks_cannot_do_is_refused(
    keys: dict[str, Any], runtime: str, reason: str
) -> None:
    with pytest.raises(JobError, match=reason):
        require_possible(job(**keys), runtime, 8)


@pytest.mark.parametrize(
    "phase_timeout, connect, execute",
    [(600.0, "600", "1836"), (10.5, "120", "1836"), (10_000.0, "7200", "30000")],
)
def test_hccl_waits_longer_than_a_rank_may_load(
    phase_timeout: float, connect: str, execute: str
) -> None:
    limits = hccl_time_limits(job(phase_timeout=phase_timeout))
    assert limits == {"HCCL_CONNECT_TIMEOUT": connect, "HCCL_EXEC_TIMEOUT": execute}
