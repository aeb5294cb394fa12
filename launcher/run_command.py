"""Carry out ``launcher run``: decide which part of a job this process has, and have it done."""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence
from typing import TYPE_CHECKING

from launcher.engines.choice import leading, own_server
from launcher.engines.engine import Starter
from launcher.job import Job
from launcher.placement import count_ranks
from launcher.prepare import default_output, prepare, read_rank_table, under_way
from launcher.rank_table.table import RankTable

if TYPE_CHECKING:
    from launcher.cluster.head import Head


def execute(
    job: Job, as_json: bool = False, dry_run: bool = False, slots: Head | None = None
) -> int:
    """Run the job, or this host's part of it; return the exit code of the whole.

    Standard output gets the result, as JSON or as text, and nothing else gets JSON. A failure is
    told on standard error, whatever the format of the result.

    Args:
        dry_run: only print what would happen.
        slots: of mpirun or srun, where this process is rank 0 of them.
    """
    table = read_rank_table(job)
    if slots is not None and job.ranks is None and table is None:
        job = job.model_copy(update={"ranks": slots.ranks})
    if slots is not None and not dry_run:
        return _run(job, table, as_json, slots, plain=True)
    if job.engine == "slurm":
        from launcher.engines import slurm

        if slurm.ALLOCATION not in os.environ:
            return _submit(job, count_ranks(job, table), dry_run)
    if dry_run:
        from launcher import plan_command

        return plan_command.execute(job, as_json)
    server = own_server(job, table, os.environ)
    if table is not None and server not in (None, table.servers[0]):
        from launcher.cluster.hosts import follow

        return follow(job, table, str(server))
    with leading(job, table, os.environ) as starter:
        return _run(job, table, as_json, starter)


def _submit(job: Job, ranks: int, dry_run: bool) -> int:
    """Have Slurm carry out the command line of this process; show what came of it."""
    from launcher.engines import slurm

    folder = job.output or default_output()
    arguments = [word for word in sys.argv[1:] if word != "--dry-run"]
    arguments += ["--output", str(folder)]  # of two, the last one counts
    log = folder / "slurm.log"
    script = slurm.batch_script(job, ranks, arguments, log)
    if dry_run:
        print(script, end="")
        return 0
    folder.mkdir(parents=True, exist_ok=True)
    exit_code = slurm.submit(script, os.environ)
    print(log.read_text(encoding="utf-8", errors="replace") if log.exists() else "", end="")
    return exit_code


def _run(
    job: Job, table: RankTable | None, as_json: bool, starter: Starter, plain: bool = False
) -> int:
    prepared = prepare(job, table, starter)
    teed: Sequence[int] = ()
    if job.tee:
        from launcher.tee import chosen_ranks

        teed = chosen_ranks(job.tee, len(prepared.placement.specs))
    with under_way(prepared):
        from launcher.show_run import show_run  # while MindSpore is imported elsewhere

        return show_run(prepared, teed, as_json, plain)
