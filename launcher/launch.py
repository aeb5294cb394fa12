"""Carry a job from its description to its result: prepare, start, collect, write down."""

from __future__ import annotations

import json
import os
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path

from launcher import preflight
from launcher.errors import JobError, Problem, RankTableError
from launcher.host import look_around
from launcher.job import Job
from launcher.labels import accuracy, read_labels
from launcher.outcome import Limits, Outcome, RootCause
from launcher.placement import Placement, place
from launcher.rank_table import RankTable, parse_rank_table
from launcher.run_folder import RunFolder
from launcher.run_result import RankResult, Result
from launcher.runner import run_ranks
from workers.protocol import Message
from workers.resharding.atomic import atomic_file
from workers.resharding.checkpoint import SlicedCheckpoint
from workers.spec import WorkerSpec


@dataclass(frozen=True)
class Prepared:
    """A job that can start: everything is checked, and nothing has been written yet."""

    job: Job
    folder: RunFolder
    placement: Placement
    checkpoint: SlicedCheckpoint | None  # what the job loads, opened once to check it


def prepare(job: Job, environment: Mapping[str, str]) -> Prepared:
    """Decide where the ranks of a job run, and check what they will need.

    Raises:
        LauncherError: the job, a file that it names, or this host will not do.
    """
    table = read_rank_table(job)
    folder = RunFolder(job.output or _default_output())
    placement = place(job, table, look_around(), folder, environment)
    return Prepared(job, folder, placement, preflight.check(job, folder.root))


def start(prepared: Prepared, watch: Callable[[Message], None]) -> Result:
    """Run the ranks to their end and write summary.json, whatever that end is."""
    job, folder, specs = prepared.job, prepared.folder, prepared.placement.specs
    folder.create()
    folder.summary.unlink(missing_ok=True)  # of an earlier run: a killed one must not look like it
    if job.rank_table is not None:
        folder.rank_table.write_bytes(job.rank_table.read_bytes())
    started_s = time.monotonic()
    limits = Limits(total_s=job.timeout, phase_s=job.phase_timeout)
    outcome = run_ranks(specs, folder, limits, watch)
    result = Result(
        job=job,
        exit_code=outcome.exit_code,
        seconds=time.monotonic() - started_s,
        folder=folder.root,
        summary=folder.summary,
        predictions=outcome.outputs,
        batches=outcome.batches,
        partial=outcome.partial,
        ranks=tuple(_rank_result(spec, outcome) for spec in specs),
        cause=outcome.cause,
        followers=outcome.followers,
    )
    if result.ok and job.labels is not None:
        result = _compared(result, job.labels, folder)
    with atomic_file(folder.summary) as file:
        file.write(json.dumps(result.to_dict(), indent=2).encode() + b"\n")
    return result


def _compared(result: Result, labels: str, folder: RunFolder) -> Result:
    """Return the result with its accuracy; labels that do not fit are a failure of their own."""
    try:
        share = accuracy(read_labels(labels), result.predictions[0], labels)
    except JobError as error:
        cause = RootCause(
            rank=None,
            server_id=None,
            device_id=None,
            phase=None,
            kind=type(error).__name__,
            message=str(error),
            traceback="",
            log=folder.summary,
            exit_code=error.exit_code,
        )
        return replace(result, exit_code=error.exit_code, cause=cause)
    return replace(result, accuracy=share)


def _rank_result(spec: WorkerSpec, outcome: Outcome) -> RankResult:
    return RankResult(
        rank=spec.rank,
        server_id=spec.server_id,
        device_id=spec.device_id,
        device=spec.device,
        log=Path(spec.log_file),
        report=outcome.reports.get(spec.rank),
    )


def read_rank_table(job: Job) -> RankTable | None:
    """Return the rank table that the job names, if it names one."""
    path = job.rank_table
    if path is None:
        return None
    try:
        return parse_rank_table(path.read_text(encoding="utf-8"), str(path))
    except (OSError, UnicodeDecodeError) as error:
        reason = getattr(error, "strerror", None) or str(error)
        problem = Problem("", reason, "name an HCCL rank table; rank_tables/ holds examples")
        raise RankTableError(str(path), [problem]) from error


def _default_output() -> Path:
    """Return a folder that no other run has: two may start in the same second."""
    return Path.cwd() / "runs" / time.strftime(f"%Y%m%d-%H%M%S-{os.getpid()}")
