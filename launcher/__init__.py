"""Predict with a MindSpore network whose weights were saved as slices, from Python or a shell.

    import launcher
    job = launcher.load_job("job.yaml", ranks=8)
    result = launcher.run(job)
    result.exit_code, result.arrays()

Importing this package costs nothing; what a call needs is imported by the call.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from pathlib import Path

    from launcher.job import Job
    from launcher.plan_command import Plan
    from launcher.run_result import Result
    from launcher.runner import Watch

__version__ = "0.1.0"
__all__ = ["load_job", "plan", "run"]


def load_job(path: str | Path | None = None, **values: Any) -> Job:
    """Return the job of a file, or of no file, with ``values`` on top of it.

    Raises:
        launcher.errors.JobError: names the file, the key and the fix of everything wrong.
    """
    from pathlib import Path

    from launcher.job_file import load_job as load

    return load(Path(path) if path is not None else None, values)


def plan(job: Job) -> Plan:
    """Return where the ranks of a job would run and what they would read; starts none of them.

    Raises:
        launcher.errors.LauncherError: the job cannot start.
    """
    from launcher.plan_command import plan_job

    return plan_job(job)


def run(job: Job, watch: Watch = lambda message: None) -> Result:
    """Predict, and return the verified result or the cause of the failure.

    Args:
        watch: is called with every message of every rank as it comes, with restarts, and with
            what the run goes on from.

    Raises:
        launcher.errors.LauncherError: the job cannot start; nothing has been written.
        OSError: the output folder cannot be made or written to.
    """
    import os

    from launcher.engines.choice import leading
    from launcher.prepare import prepare, read_rank_table, under_way

    table = read_rank_table(job)
    with leading(job, table, os.environ) as starter:
        prepared = prepare(job, table, starter)
        with under_way(prepared):
            from launcher.launch import start  # while MindSpore is imported elsewhere

            return start(prepared, watch)
