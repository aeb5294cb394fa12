"""Carry out ``launcher layout``: print how the ranks would divide each parameter."""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Mapping
from typing import Any

from rich.table import Table

from launcher import layout_report
from launcher.console import make_console
from launcher.host import look_around
from launcher.job import Job
from launcher.launch import read_rank_table
from launcher.placement import resolve_table
from launcher.preflight import check_entry_points


def execute(job: Job, as_json: bool) -> int:
    """Print the predict layouts in MindSpore's conventions, as a table or as JSON."""
    rank_size = resolve_table(job, read_rank_table(job)).rank_size
    check_entry_points(job)
    report = layout_report.ask(job, rank_size, os.environ, threads=look_around().cores)
    if as_json:
        print(json.dumps(report, indent=2))
    else:
        make_console(sys.stdout).print(parameter_table(report["parameters"]))
    return 0


def parameter_table(parameters: Mapping[str, Any]) -> Table:
    """Return a row for each parameter."""
    table = Table(box=None, pad_edge=False)
    for title in ("parameter", "dtype", "full shape", "slice shape", "device matrix", "tensor map"):
        table.add_column(title)
    for name, item in parameters.items():
        shapes = (item[key] for key in ("full_shape", "slice_shape", "device_matrix", "tensor_map"))
        table.add_row(name, item["dtype"], *map(str, shapes))
    return table
