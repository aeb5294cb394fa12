"""Carry a job that is prepared to its result: start, collect, write down."""

from __future__ import annotations

import json
import time
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from launcher import metrics_report
from launcher.errors import JobError, ReportError, SystemFailedError, reason_of
from launcher.host import look_around
from launcher.labels import accuracy, read_labels
from launcher.outcome import Limits, Outcome, RootCause
from launcher.prepare import Prepared
from launcher.run_folder import RunFolder, restore, withdraw
from launcher.run_result import RankResult, Result
from launcher.runner import Watch, run_ranks
from launcher.single_check import SingleCheckError, compare_with_single
from launcher.streams import tell
from workers.resharding.atomic import atomic_file
from workers.spec import WorkerSpec


def start(prepared: Prepared, watch: Watch) -> Result:
    """Run the ranks of a job that is under way, and write summary.json, whatever their end is.

    Raises:
        OSError: the folder cannot be written to; no rank has been started.
    """
    result = _summarised(_run(prepared, watch))
    prepared.starter.conclude(result.exit_code)
    return result


def _run(prepared: Prepared, watch: Watch) -> Result:
    job, folder, specs = prepared.job, prepared.folder, prepared.placement.specs
    if job.rank_table is not None:
        folder.rank_table.write_bytes(job.rank_table.read_bytes())
    started_s = time.monotonic()
    may_restart = not prepared.placement.uses_mpi
    if job.max_restarts and not may_restart:
        tell("no restarts: ranks that have left MPI cannot join it again")
    limits = Limits(
        total_s=job.timeout,
        phase_s=job.phase_timeout,
        max_restarts=job.max_restarts if may_restart else 0,
    )
    outcome = run_ranks(specs, folder, limits, watch, prepared.starter, job.resume)
    labelled = job.task == "eval" and bool(outcome.outputs)
    predictions = outcome.outputs[:-1] if labelled else outcome.outputs
    result = Result(
        job=job,
        exit_code=outcome.exit_code,
        seconds=time.monotonic() - started_s,
        folder=folder.root,
        summary=folder.summary,
        predictions=predictions,
        batches=outcome.batches,
        partial=outcome.partial,
        ranks=tuple(_rank_result(spec, outcome, folder) for spec in specs),
        cause=outcome.cause,
        followers=outcome.followers,
        checked=prepared.checked,
        restarts=outcome.restarts,
        warnings=(*prepared.warnings, *outcome.warnings),
    )
    if not result.ok:
        return result
    if job.task == "eval":
        return _evaluated(result, prepared, outcome)
    if job.labels is not None:
        result = _compared(result, job.labels)
    return _checked(result, prepared, limits) if job.check_single else result


def _evaluated(result: Result, prepared: Prepared, outcome: Outcome) -> Result:
    """Return the result with its metrics, or the failure that they cannot be had."""
    partial = withdraw(outcome.outputs)  # in case that this process is killed meanwhile
    try:
        metrics = _metrics(prepared, outcome, partial)
        restore(outcome.outputs)
        return replace(result, metrics=metrics)
    except (ReportError, OSError) as error:
        failed = _failed(result, error, result.folder)
        return replace(failed, predictions=(), partial=partial)


def _metrics(
    prepared: Prepared, outcome: Outcome, delivered: Sequence[Path]
) -> Mapping[str, Any]:
    """Return the metrics of a rank that evaluated by itself, or of what all ranks delivered."""
    (report, *others) = outcome.reports.values()
    if not others and report.metrics is not None:
        return report.metrics
    specs, (outputs, labels) = prepared.placement.specs, delivered
    threads = len(specs) * specs[0].threads  # the ranks have ended
    environment = specs[0].environment
    return metrics_report.ask(
        prepared.job, outputs, labels, outcome.batch_ends, environment, threads
    )


def _compared(result: Result, labels: str) -> Result:
    """Return the result with its accuracy; labels that do not fit take nothing from it."""
    try:
        share = accuracy(read_labels(labels), result.predictions[0], labels)
    except (JobError, OSError) as error:
        return replace(result, warnings=(*result.warnings, f"no accuracy: {error}"))
    return replace(result, accuracy=share)


def _checked(result: Result, prepared: Prepared, limits: Limits) -> Result:
    """Return the result with its difference from that of one process, or as a failed one."""
    job, folder, spec = prepared.job, prepared.folder, prepared.placement.specs[0]
    tell("the same in one process, to compare")
    partial = withdraw(result.predictions)  # in case that this process is killed meanwhile
    try:
        found = compare_with_single(
            spec, look_around().cores, partial, folder.single, limits, job.tolerance
        )
        restore(result.predictions)
        return replace(result, single=found)
    except (SingleCheckError, SystemFailedError, OSError) as error:
        log = error.log if isinstance(error, SingleCheckError) else folder.single.root
        failed = _failed(result, error, log)
        return replace(failed, predictions=(), partial=partial)


def _failed(result: Result, error: Exception, log: Path) -> Result:
    """Return the result of ranks that did what they could, as a failed one."""
    exit_code = getattr(error, "exit_code", 1)  # 1: the operating system refused something
    cause = RootCause(
        rank=None,
        server_id=None,
        device_id=None,
        phase=None,
        kind=type(error).__name__,
        message=str(error),
        traceback="",
        log=log,
        exit_code=exit_code,
    )
    return replace(result, exit_code=exit_code, cause=cause)


def _summarised(result: Result) -> Result:
    """Write summary.json; a result stays what it is when the disk is full."""
    try:
        with atomic_file(result.summary) as file:
            file.write(json.dumps(result.to_dict(), indent=2).encode() + b"\n")
    except OSError as error:
        return replace(result, warnings=(*result.warnings, f"no summary: {reason_of(error)}"))
    return result


def _rank_result(spec: WorkerSpec, outcome: Outcome, folder: RunFolder) -> RankResult:
    return RankResult(
        rank=spec.rank,
        server_id=spec.server_id,
        device_id=spec.device_id,
        device=spec.device,
        log=folder.log(spec.rank),
        report=outcome.reports.get(spec.rank),
    )
