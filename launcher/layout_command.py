"""Carry out ``launcher layout``: print how the ranks would divide each parameter."""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Mapping, Sequence
from typing import Any

from rich.table import Table

from launcher import layout_report
from launcher.console import make_console
from launcher.device_options import require_stages
from launcher.host import look_around
from launcher.hub import resolve
from launcher.job import Job
from launcher.placement import count_ranks
from launcher.preflight import check_entry_points
from launcher.prepare import read_rank_table
from launcher.text import ranges, size


def execute(job: Job, as_json: bool = False, program: bool = False) -> int:
    """Print the predict layouts in MindSpore's conventions, as a table or as JSON.

    Args:
        program: print the operators with their strategies and the collectives too.
    """
    job = resolve(job, os.environ)
    rank_size = count_ranks(job, read_rank_table(job))
    require_stages(job, rank_size)
    check_entry_points(job)
    report = layout_report.ask(job, rank_size, os.environ, threads=look_around().cores)
    if as_json:
        shown = report if program else {"parameters": report["parameters"]}
        print(json.dumps(shown, indent=2))
        return 0
    console = make_console(sys.stdout)
    console.print(parameter_table(report["parameters"]))
    if program:
        console.print()
        console.print(operator_table(report["operators"]))
        console.print()
        console.print(collective_table(report["collectives"]))
    return 0


def parameter_table(parameters: Mapping[str, Any]) -> Table:
    """Return a row for each parameter."""
    table = Table(box=None, pad_edge=False)
    for title in ("parameter", "dtype", "full shape", "slice shape", "device matrix", "tensor map"):
        table.add_column(title)
    staged = any(item["stages"] != [0] for item in parameters.values())
    if staged:
        table.add_column("stages")
    for name, item in parameters.items():
        shapes = [item[key] for key in ("full_shape", "slice_shape", "device_matrix", "tensor_map")]
        stages = [ranges(item["stages"])] * staged
        table.add_row(name, item["dtype"], *map(str, shapes), *stages)
    return table


def operator_table(operators: Sequence[Mapping[str, Any]]) -> Table:
    """Return a row for each operator, in the order in which they run."""
    table = Table(box=None, pad_edge=False)
    for title in ("operator", "where", "strategy", ""):
        table.add_column(title)
    staged = any(item["stage"] for item in operators)
    for item in operators:
        remarks = [f"stage {item['stage']}"] * staged
        remarks += ["generated"] * item["generated"] + ["runs whole"] * (not item["sliced"])
        strategy = ", ".join(map(str, item["strategy"]))
        table.add_row(item["op"], item["scope"], strategy, ", ".join(remarks))
    return table


def collective_table(collectives: Sequence[Mapping[str, Any]]) -> Table:
    """Return a row for each collective of rank 0, with the bytes that it gets from others.

    With pipeline stages, also those of the first rank of each later stage.
    """
    table = Table(box=None, pad_edge=False)
    for title in ("collective", "ranks", "bytes", "after", "before"):
        table.add_column(title)
    for item in collectives:
        ends = (item["after"] or "input", item["before"] or "output")
        ranks = "-".join(map(str, item["ranks"]))
        table.add_row(item["op"], ranks, size(item["bytes"]), *ends)
    return table
