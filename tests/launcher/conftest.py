"""What several tests of the launcher need: a job, specs of ranks, results of runs."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from launcher.job import Job
from launcher.outcome import RootCause
from launcher.run_result import RankResult, Result
from workers.protocol import RankReport
from workers.spec import WorkerSpec

MakeJob = Callable[..., Job]
MakeResult = Callable[..., Result]


@pytest.fixture
def make_job() -> MakeJob:
    """Return a maker of jobs; only what a test is about has to be given."""

    def make(**values: Any) -> Job:
        return Job.model_validate(
            {"network": "net:make", "predict_data": "net:data", "ranks": 2} | values
        )

    return make


@pytest.fixture
def specs() -> tuple[WorkerSpec, ...]:
    """Return the specs of two simulated ranks."""
    return tuple(
        WorkerSpec(
            rank=rank,
            rank_size=2,
            device_id=rank,
            server_id="localhost",
            device="simulated",
            network="net:make",
            predict_data="net:data",
            log_file=f"/out/logs/rank_{rank}.log",
        )
        for rank in range(2)
    )


@pytest.fixture
def cause() -> RootCause:
    return RootCause(
        rank=1,
        server_id="10.0.0.7",
        device_id=3,
        phase="load",
        kind="ValueError",
        message="shapes (4, 3) and (2, 3) do not match",
        traceback="".join(f"  frame {number}\n" for number in range(40)),
        log=Path("/out/logs/rank_1.log"),
        exit_code=1,
    )


@pytest.fixture
def make_result(make_job: MakeJob, tmp_path: Path) -> MakeResult:
    """Return a maker of results: two ranks that predicted 4 samples of 3 classes."""

    def make(**values: Any) -> Result:
        predictions = tmp_path / "predictions.npy"
        np.save(predictions, np.eye(4, 3, dtype=np.float32))
        report = RankReport(
            phase_seconds={"context": 0.05, "load": 0.01, "predict": 1.25},
            bytes_read=1536,
            bytes_held=3 * 1024**2,
            peak_memory_bytes=200 * 1024**2,
            batches=2,
        )
        ranks = tuple(
            RankResult(
                rank=rank,
                server_id="localhost",
                device_id=rank,
                device="simulated",
                log=tmp_path / "logs" / f"rank_{rank}.log",
                report=report,
            )
            for rank in range(2)
        )
        usual = {
            "job": make_job(),
            "exit_code": 0,
            "seconds": 2.5,
            "folder": tmp_path,
            "summary": tmp_path / "summary.json",
            "predictions": (predictions,),
            "batches": 2,
            "partial": (),
            "ranks": ranks,
            "cause": None,
            "followers": 0,
        }
        return Result(**(usual | values))

    return make
