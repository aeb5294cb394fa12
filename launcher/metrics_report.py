"""Ask a child of its own, which may import mindspore, for the metrics of delivered outputs."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from launcher import child
from launcher.job import Job
from launcher.placement import clean_environment

CHILD = child.python_module("workers.metrics_report")


def ask(
    job: Job,
    outputs: Path,
    labels: Path,
    batch_ends: Sequence[Sequence[int]],
    environment: Mapping[str, str],
    threads: int,
) -> dict[str, Any]:
    """Return the value of each metric over all batches, in the order of the files.

    Args:
        batch_ends: the row behind each batch, of the outputs and of the labels.

    Raises:
        ReportError: the loss or a metric of the job cannot be used; the child's words say why.
    """
    request = {
        "outputs": str(outputs),
        "labels": str(labels),
        "batch_ends": [list(ends) for ends in batch_ends],
        "loss": job.loss,
        "metrics": job.metrics,
        "search_path": [str(folder) for folder in job.search_path],
    }
    late = f"the metrics were not there in {job.timeout:g} s; try a longer --timeout"
    return child.ask(CHILD, request, clean_environment(environment, threads), job.timeout, late)
