"""Carry out ``launcher run``: show a run while it goes on, and how it ended."""

from __future__ import annotations

import json
import os
import sys

from launcher import summary
from launcher.console import make_console
from launcher.job import Job
from launcher.launch import prepare, start
from launcher.progress import Progress


def execute(job: Job, as_json: bool = False) -> int:
    """Run the job; standard output gets the result, as JSON or as text, and nothing else gets JSON.

    A failure is told on standard error, whatever the format of the result.
    """
    console = make_console(sys.stderr if as_json else sys.stdout)
    prepared = prepare(job, os.environ)
    console.print(prepared.placement.headline)
    with Progress(console, prepared.placement.specs) as progress:
        result = start(prepared, progress.watch)
    if result.ok:
        console.print(summary.rank_summary(result))
        for line in summary.success(result):
            console.print(line, soft_wrap=True)
    else:
        print(*summary.failure(result), sep="\n", file=sys.stderr)
    for warning in result.warnings:
        print(f"warning: {warning}", file=sys.stderr)
    if as_json:
        print(json.dumps(result.to_dict(), indent=2))
    return result.exit_code
