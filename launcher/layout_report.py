"""Ask a child of its own, which may import mindspore, for the layouts of the predict program."""

from __future__ import annotations

import json
import os
import subprocess
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from launcher.child import python_module, with_our_code
from launcher.errors import DEADLINE_EXIT_CODE, LayoutReportError
from launcher.job import Job
from launcher.placement import clean_environment
from workers.resharding.layout import Layout
from workers.resharding.layout_document import layout_of_report

CHILD = python_module("workers.layout_report")
LONGEST_WAIT_S = 1e6  # subprocess cannot wait for ever


@dataclass(frozen=True)
class PredictParameter:
    """A parameter of the predict program: what ``workers.resharding.plan`` calls wanted."""

    layout: Layout
    full_shape: tuple[int, ...]
    dtype: str


def ask(job: Job, rank_size: int, environment: Mapping[str, str], threads: int) -> dict[str, Any]:
    """Return the report of ``workers.layout_report``: parameters, operators and collectives.

    Raises:
        LayoutReportError: the network or its data cannot be used; the child's own words say why.
    """
    request = {
        "network": job.network,
        "predict_data": job.predict_data,
        "ranks": rank_size,
        "search_path": [str(folder) for folder in job.search_path],
        "launcher": os.getpid(),  # the child ends when this process does
    }
    try:
        child = subprocess.run(
            CHILD,
            input=json.dumps(request),
            capture_output=True,
            text=True,
            env=with_our_code(clean_environment(environment, threads)),
            timeout=min(job.timeout, LONGEST_WAIT_S),
        )
    except subprocess.TimeoutExpired as error:
        said = f"{job.network} gave no layout in {job.timeout:g} s; try a longer --timeout"
        raise LayoutReportError(DEADLINE_EXIT_CODE, said) from error
    if child.returncode != 0:
        code = child.returncode if child.returncode > 0 else 128 - child.returncode
        raise LayoutReportError(code, child.stderr.strip())
    report: dict[str, Any] = json.loads(child.stdout)
    return report


def predict_parameters(report: Mapping[str, Any]) -> dict[str, PredictParameter]:
    """Return the parameters of a report in the terms of the re-sharding core."""
    return {
        name: PredictParameter(layout_of_report(item), tuple(item["full_shape"]), item["dtype"])
        for name, item in report["parameters"].items()
    }
