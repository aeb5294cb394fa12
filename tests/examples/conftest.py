"""The shipped jobs, run on one device with the weights that their slices make."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path

import numpy as np
import pytest

from launcher.job_file import load_job
from workers.runtimes.single import SingleRuntime
from workers.spec import WorkerSpec
from workers.worker import read_slices

EXAMPLES = Path(__file__).parents[2] / "examples"


@pytest.fixture
def run_whole() -> Callable[[str], tuple[Mapping[str, np.ndarray], np.ndarray]]:
    """Return a function: name of an example -> its assembled weights and its predictions."""

    def run(example: str) -> tuple[Mapping[str, np.ndarray], np.ndarray]:
        job = load_job(EXAMPLES / example / "job.yaml", {})
        spec = WorkerSpec(
            rank=0,
            rank_size=1,
            device_id=0,
            server_id="localhost",
            device="single",
            network=job.network,
            predict_data=job.predict_data,
            checkpoint=job.checkpoint,
            strategy=str(job.strategy),
        )
        runtime = SingleRuntime(spec)
        runtime.open()
        weights, _ = read_slices(spec, runtime.wanted_parameters())
        runtime.load(weights)
        outputs = [runtime.predict(batch)[0] for batch in runtime.batches()]
        return weights, np.concatenate(outputs)

    return run
