"""Run the ranks of a job to their end: the shell around the pure supervision. Parent only.

One loop in one thread waits for the ranks' messages, the engine's news, signals and the next
deadline; whatever comes is an event for ``Supervision``, whose answers are signals to send. After a
failure that is worth it comes another attempt: new processes, new keys, from the last whole batch.
"""

from __future__ import annotations

import math
import secrets
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, closing
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, TypeAlias

import zmq

from launcher.agreement import VerificationError
from launcher.collector import Collector
from launcher.engines.engine import Engine, Starter
from launcher.engines.local import LocalStarter
from launcher.errors import SystemFailedError, reason_of
from launcher.event_log import EventLog
from launcher.events import Cause, Event, Heard, Interrupted, ResultRefused, Tick
from launcher.interrupts import Interrupts
from launcher.journal import NOTHING, Journal, Reached, read_reached
from launcher.outcome import Limits, Outcome, Restarted, Resumed, RootCause
from launcher.prediction_files import CommonFiles, PredictionFiles, SharedFiles
from launcher.run_folder import RunFolder
from launcher.supervision import Supervision
from workers.protocol import Done, Message, Prediction, PredictionDigest, RankReport
from workers.spec import CollectorAddress, WorkerSpec

_IDENTITY = (
    *("task", "parallel_mode", "rank_size", "device", "network", "network_args", "predict_data"),
    *("batch_size", "checkpoint", "checkpoint_version", "strategy"),
)
Watch: TypeAlias = "Callable[[Message | Restarted | Resumed], None]"
LONGEST_WAIT_S = 60.0  # poll() cannot wait for ever


def run_ranks(
    specs: Sequence[WorkerSpec],
    folder: RunFolder,
    limits: Limits,
    watch: Watch,
    starter: Starter = LocalStarter(),
    resume: bool = False,
) -> Outcome:
    """Start the ranks, collect what they predict, and leave no process behind.

    Args:
        specs: one for each rank, without collector and job id.
        folder: has begun with this run.
        watch: is shown every message and restart as it comes, and what is gone on from.
        resume: go on from the last whole batch of the same run, if there is one in the folder.

    Raises:
        JobError: what is in the folder is of another run.
        OSError: the folder cannot be written, or no process be started.
        SystemFailedError: something like it while ranks ran.
    """
    restarts: list[Restarted] = []
    with Interrupts() as interrupts, EventLog(folder.events) as log:
        surroundings = _Surroundings(folder, limits, watch, starter, interrupts, log)
        while True:
            goes_on = resume or bool(restarts)
            before = read_reached(folder.progress, _identity(specs[0])) if goes_on else NOTHING
            if resume and not restarts:
                watch(Resumed(before.batches))
            outcome = _attempt(specs, surroundings, before)
            cause, number = outcome.cause, len(restarts) + 1
            if cause is None or not cause.worth_retrying or number > limits.max_restarts:
                break
            old_log = folder.set_aside_logs(number) / cause.log.relative_to(folder.logs)
            folder.create()
            restarts.append(Restarted(number, replace(cause, log=old_log), outcome.batches))
            log.write("restart", number=number, most=limits.max_restarts)
            watch(restarts[-1])
        log.write("end", exit_code=outcome.exit_code, batches=outcome.batches)
    lost = (f"no more events: {log.failure}",) if log.failure else ()
    return replace(outcome, restarts=tuple(restarts), warnings=lost)


@dataclass(frozen=True)
class _Surroundings:
    """What all attempts of a run have in common."""

    folder: RunFolder
    limits: Limits
    watch: Watch
    starter: Starter
    interrupts: Interrupts
    log: EventLog
    began_s: float = field(default_factory=time.monotonic)


def _attempt(specs: Sequence[WorkerSpec], around: _Surroundings, before: Reached) -> Outcome:
    """Run the ranks once, from the first to the last process of them, from where others came to."""
    folder, starter = around.folder, around.starter
    ranks, run_identity = [spec.rank for spec in specs], _identity(specs[0])
    if not before.batches:
        folder.set_aside_results()
    specs = [replace(spec, first_batch=before.batches) for spec in specs]
    around.log.write("start", ranks=ranks, first_batch=before.batches)
    with ExitStack() as stack:
        journal = stack.enter_context(closing(Journal(folder.progress, run_identity, before)))
        files = stack.enter_context(closing(_result_files(specs, folder, journal, before)))
        collector = stack.enter_context(Collector(ranks, starter.collector))
        told = tell_ranks(specs, folder, collector.address)
        engine = stack.enter_context(closing(starter.start(told, folder.engine_log)))
        now_s = time.monotonic()
        supervision = Supervision(ranks, around.limits, now_s, late_s=now_s - around.began_s)
        run = _Run(collector, engine, files, around)
        try:
            run.until_finished(supervision)
        except OSError as error:
            raise SystemFailedError(reason_of(error)) from error
        outputs = run.publish(supervision)
        partial = () if outputs else files.salvage()
        if outputs:
            journal.forget()
    cause = supervision.cause
    if cause is not None:
        around.log.note_cause(cause)
    return Outcome(
        exit_code=0 if cause is None else cause.exit_code,
        cause=None if cause is None else _root_cause(cause, supervision.alike, specs, folder),
        followers=supervision.followers,
        reports=run.reports,
        outputs=outputs,
        batches=files.batches,
        batch_ends=files.batch_ends if specs[0].task == "eval" else (),
        partial=partial or (folder.partials if before.batches and not outputs else ()),
    )


def _identity(spec: WorkerSpec) -> dict[str, Any]:
    """Return what two runs must have in common for one to go on from the other."""
    return {name: getattr(spec, name) for name in _IDENTITY}


def _result_files(
    specs: Sequence[WorkerSpec], folder: RunFolder, journal: Journal, before: Reached
) -> PredictionFiles:
    kind = SharedFiles if specs[0].shares_data else CommonFiles
    ranks, labelled = [spec.rank for spec in specs], specs[0].task == "eval"
    if labelled and len(ranks) == 1:  # the metrics are in the memory of the rank
        return kind(ranks, folder, labelled)
    return kind(ranks, folder, labelled, journal, before)


def tell_ranks(
    specs: Sequence[WorkerSpec], folder: RunFolder, collector: CollectorAddress
) -> list[WorkerSpec]:
    """Return the specs with what is of this run: whom to report to, as which job, and the logs."""
    job_id = secrets.token_hex(8)
    return [
        replace(
            spec,
            collector=collector,
            job_id=job_id,
            log_file=str(folder.log(spec.rank)),
        )
        for spec in specs
    ]


class _Run:
    """Everything that can have news, and what is done with the news."""

    def __init__(
        self,
        collector: Collector,
        engine: Engine,
        files: PredictionFiles,
        around: _Surroundings,
    ) -> None:
        self.reports: dict[int, RankReport] = {}
        self._collector, self._engine, self._files = collector, engine, files
        self._interrupts, self._log, self._watch = around.interrupts, around.log, around.watch
        self._trusted = True  # until a prediction was refused; the later ones are not looked at
        self._poller = zmq.Poller()
        for source in (collector.socket, *engine.sources, self._interrupts.fileno()):
            self._poller.register(source, zmq.POLLIN)

    def until_finished(self, supervision: Supervision) -> None:
        """Pump events in and signals out until there is nothing left to wait for."""
        while not supervision.finished:
            for event in self._events(supervision.next_due_s):
                self._log.note(event)
                for action in supervision.handle(event):
                    self._log.note_sent(action)
                    self._engine.send_signal(action.rank, action.signal)

    def publish(self, supervision: Supervision) -> tuple[Path, ...]:
        """Name the prediction files if nothing speaks against it."""
        if supervision.cause is None:
            try:
                return self._files.publish(self.reports)
            except (VerificationError, OSError) as error:
                refusal = _refusal(error)
                self._log.note(refusal)
                supervision.handle(refusal)
        return ()

    def _events(self, until_s: float) -> Iterator[Event]:
        """Yield what happens until then, or at least that time has passed.

        Messages come first. A rank exits only after its last word was acknowledged: read in
        this order, a rank that explained itself is never taken for one that did not.
        """
        wait_s = min(max(0.0, until_s - time.monotonic()), LONGEST_WAIT_S)
        self._poller.poll(math.ceil(wait_s * 1000))
        for message in self._collector.receive():
            yield Heard(message, time.monotonic())
            yield from self._take(message)
        yield from self._engine.receive(time.monotonic())
        for number in self._interrupts.receive():
            yield Interrupted(number, time.monotonic())
        yield Tick(time.monotonic())

    def _take(self, message: Message) -> Iterator[Event]:
        self._watch(message)
        if isinstance(message, Done):
            self.reports[message.rank] = message.report
        elif isinstance(message, (Prediction, PredictionDigest)) and self._trusted:
            before = self._files.batches
            try:
                self._files.take(message)
            except (VerificationError, OSError) as error:
                self._trusted = False
                yield _refusal(error)
            if self._files.batches > before:
                self._log.write("verified", batches=self._files.batches)


def _refusal(error: VerificationError | OSError) -> ResultRefused:
    rank = error.rank if isinstance(error, VerificationError) else None
    exit_code = getattr(error, "exit_code", 1)
    return ResultRefused(rank, type(error).__name__, str(error), exit_code, time.monotonic())


def _root_cause(
    cause: Cause, alike: tuple[int, ...], specs: Sequence[WorkerSpec], folder: RunFolder
) -> RootCause:
    """Add where the rank is and where to read on."""
    spec = next((spec for spec in specs if spec.rank == cause.rank), None)
    no_rank_log = folder.engine_log if cause.kind == "EngineLost" else folder.logs
    return RootCause(
        rank=cause.rank,
        server_id=spec.server_id if spec else None,
        device_id=spec.device_id if spec else None,
        phase=cause.phase,
        kind=cause.kind,
        message=cause.message,
        traceback=cause.traceback,
        log=folder.log(spec.rank) if spec else no_rank_log,
        exit_code=cause.exit_code,
        worth_retrying=cause.worth_retrying,
        alike=alike,
    )
