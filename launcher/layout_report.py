"""Ask a child of its own, which may import mindspore, for the layouts of the predict program."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from launcher import child
from launcher.job import Job
from launcher.placement import clean_environment
from workers.resharding.dtypes import STORAGE
from workers.resharding.layout import Layout
from workers.resharding.layout_document import layout_of_report

CHILD = child.python_module("workers.layout_report")


@dataclass(frozen=True)
class PredictParameter:
    """A parameter of the predict program: what ``workers.resharding.plan`` calls wanted."""

    layout: Layout
    full_shape: tuple[int, ...]
    dtype: str

    @property
    def slice_bytes(self) -> int:
        """What one rank holds of it."""
        shape = self.layout.slice_shape(self.full_shape)
        return math.prod(shape) * STORAGE[self.dtype].itemsize


def ask(job: Job, rank_size: int, environment: Mapping[str, str], threads: int) -> dict[str, Any]:
    """Return the report of ``workers.layout_report``: parameters, operators and collectives.

    Raises:
        ReportError: the network or its data cannot be used; the child's own words say why.
    """
    request = {
        "network": job.network,
        "network_args": job.network_args,
        "predict_data": job.data,
        "task": job.task,
        "parallel_mode": job.parallel_mode,
        "batch_size": job.batch_size,
        "ranks": rank_size,
        "pipeline_stages": job.pipeline_stages,
        "dataset_strategy": job.dataset_strategy,
        "search_path": [str(folder) for folder in job.search_path],
    }
    late = f"{job.network} gave no layout in {job.timeout:g} s; try a longer --timeout"
    return child.ask(CHILD, request, clean_environment(environment, threads), job.timeout, late)


def predict_parameters(report: Mapping[str, Any]) -> dict[str, PredictParameter]:
    """Return the parameters of a report in the terms of the re-sharding core."""
    return {
        name: PredictParameter(layout_of_report(item), tuple(item["full_shape"]), item["dtype"])
        for name, item in report["parameters"].items()
    }
