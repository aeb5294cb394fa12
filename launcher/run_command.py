"""Carry out ``launcher run``: show a run while it goes on, and how it ended."""

from __future__ import annotations

import json
import os
import sys
from typing import TYPE_CHECKING

from launcher import summary
from launcher.console import make_console
from launcher.engines.choice import leading, own_server
from launcher.engines.engine import Starter
from launcher.engines.slurm import ALLOCATION, batch_script, submit
from launcher.job import Job
from launcher.launch import default_output, prepare, read_rank_table, start
from launcher.outcome import Restarted
from launcher.placement import count_ranks
from launcher.progress import Progress
from launcher.rank_table.table import RankTable
from launcher.tee import Tee, chosen_ranks
from workers.protocol import Message

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
    if job.engine == "slurm" and ALLOCATION not in os.environ:
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
    folder = job.output or default_output()
    arguments = [word for word in sys.argv[1:] if word != "--dry-run"]
    arguments += ["--output", str(folder)]  # of two, the last one counts
    log = folder / "slurm.log"
    script = batch_script(job, ranks, arguments, log)
    if dry_run:
        print(script, end="")
        return 0
    folder.mkdir(parents=True, exist_ok=True)
    exit_code = submit(script, os.environ)
    print(log.read_text(encoding="utf-8", errors="replace") if log.exists() else "", end="")
    return exit_code


def _run(
    job: Job, table: RankTable | None, as_json: bool, starter: Starter, plain: bool = False
) -> int:
    console = make_console(sys.stderr if as_json else sys.stdout, plain)
    prepared = prepare(job, table, starter)
    console.print(prepared.placement.headline)
    teed = chosen_ranks(job.tee, len(prepared.placement.specs)) if job.tee else ()
    logs = {rank: prepared.folder.log(rank) for rank in teed}
    with Progress(console, prepared.placement.specs) as progress, Tee(logs, progress.say) as tee:

        def watch(news: Message | Restarted) -> None:
            progress.watch(news)
            tee.watch(news)

        result = start(prepared, watch)
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
