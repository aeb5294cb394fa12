"""Live the life of one rank, phase by phase. Every rank; knows neither MindSpore nor devices."""

from __future__ import annotations

import faulthandler
import os
import resource
import signal
import sys
import threading
import time
from collections.abc import Collection, Iterator, Mapping
from contextlib import closing
from operator import length_hint
from pathlib import Path
from typing import Any, NoReturn

import numpy as np

from workers.data import array_of, arrays_of, split_labels
from workers.dealing import Share, delivered_before, require_row_for_each_sample, share_of
from workers.entry_point import load_entry_point
from workers.errors import InputError, WorkerError
from workers.link import Link, exit_code_of
from workers.output import flush_output, log_error
from workers.protocol import OWNER_RANK, RankReport, Rows, checksum
from workers.resharding.checkpoint import open_checkpoint
from workers.resharding.encryption import read_key
from workers.resharding.errors import CheckpointChangedError
from workers.resharding.execute import execute
from workers.resharding.memory import require_memory
from workers.resharding.plan import plan_rank
from workers.resharding.remote.address import shown
from workers.resharding.remote.cache import Cache
from workers.resharding.remote.planned import Watch
from workers.resharding.wanted import matches
from workers.runtimes.runtime import Evaluator, OnDevice, Runtime, WantedParameter
from workers.shared_weights import read_once
from workers.spec import WorkerSpec

RUNTIMES = {
    "simulated": "workers.runtimes.simulated:SimulatedRuntime",
    "cpu": "workers.runtimes.single:SingleRuntime",
    "single": "workers.runtimes.single:SingleRuntime",
    "ascend": "workers.runtimes.device:DeviceRuntime",
    "gpu": "workers.runtimes.device:DeviceRuntime",
}


class EndedEarlyError(WorkerError):
    """The user's code ended the process before the last prediction, whatever its exit code."""

    def __init__(self, code: object) -> None:
        super().__init__(code)
        self.code = code
        self.exit_code = code if type(code) is int and 0 < code < 256 else 1

    def __str__(self) -> str:
        return f"sys.exit({self.code!r}) was called before the rank was done"


def run_process(spec: WorkerSpec) -> NoReturn:
    """Make this process the rank: its environment, its life, its exit code.

    It ends without Python's exit handlers: after the last word, no thread or library of the
    user's may keep it alive or change its exit code.
    """
    exit_code = 1
    try:
        os.environ.clear()
        os.environ.update(spec.environment)  # putenv too, so C code sees it
        faulthandler.enable()
        stay_on(spec.cores)
        _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
        resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))  # some for each peer
        exit_code = run_worker(spec)
    except BaseException as error:
        log_error(error)
    finally:
        flush_output()
        os._exit(exit_code)


def stay_on(cores: Collection[int]) -> None:
    """Bind this process to cores; those that the system withholds are not worth a failure."""
    if not cores:
        return
    try:
        os.sched_setaffinity(0, cores)
    except OSError as error:
        print(f"not bound to cores {sorted(cores)}: {error.strerror}", file=sys.stderr)


def run_worker(spec: WorkerSpec) -> int:
    """Live from the first phase to the last word; return what the process must exit with."""
    with closing(Link(spec)) as link:
        runtime: Runtime | None = None
        try:
            link.phase("started")
            runtime = make_runtime(spec)
            explain_on_signal(runtime, link)
            report = _Life(spec, runtime, link).live()
            runtime.close()
            link.done(report)
            return 0
        except BaseException as error:  # whatever it is, the launcher must hear of it, at once
            failed_s = time.monotonic()
            log_error(error)
            failure = EndedEarlyError(error.code) if isinstance(error, SystemExit) else error
            link.failed(failure.with_traceback(error.__traceback__), failed_s)
            return exit_code_of(failure)
        finally:
            if runtime is not None:
                runtime.close()


def make_runtime(spec: WorkerSpec) -> Runtime:
    """Return the runtime that ``spec.device`` names.

    A device that is no key of RUNTIMES may name the class itself, as ``module:Class``: so
    tests run ranks without MindSpore.
    """
    name = RUNTIMES.get(spec.device, spec.device)
    runtime: Runtime = load_entry_point(name, spec.search_path)(spec)
    return runtime


def explain_on_signal(runtime: Runtime, link: Link) -> None:
    """On SIGUSR1, show the stacks in the log and tell the launcher which rank is waited for.

    The rank is then blocked in its runtime, so that the link is free for one more word.
    """

    def tell(*_: object) -> None:
        waiting_for = runtime.waiting_for()
        if waiting_for is not None:
            link.waiting(*waiting_for)

    if threading.current_thread() is threading.main_thread():  # others may set no handlers
        signal.signal(signal.SIGUSR1, tell)
    faulthandler.register(signal.SIGUSR1, chain=True)


class _Life:
    """The phases between "started" and "done", and what they took."""

    def __init__(self, spec: WorkerSpec, runtime: Runtime, link: Link) -> None:
        self._spec, self._runtime, self._link = spec, runtime, link
        self._seconds: dict[str, float] = {}
        self._phase, self._entered_s = "started", time.monotonic()
        self._batches = delivered_before(spec)
        self._share: Share | None = None  # of the data, if the ranks share them

    def live(self) -> RankReport:
        self._enter("context")
        self._runtime.open()
        self._enter("layout")
        wanted = self._runtime.wanted_parameters()
        self._enter("load")
        bytes_read, bytes_held, initial = self._load(wanted)
        self._enter("compile")
        self._runtime.compile()
        if self._spec.shares_data:
            self._share = share_of(self._spec)
        self._enter("predict")
        metrics = self._predict_all()
        self._enter("done")
        return RankReport(
            phase_seconds=self._seconds,
            bytes_read=bytes_read,
            bytes_held=bytes_held,
            peak_memory_bytes=peak_memory_bytes(),
            device_memory_bytes=_device_memory_bytes(self._runtime),
            batches=self._batches,
            initial=initial,
            metrics=metrics,
            samples=self._share.samples if self._share is not None else None,
            seen=self._share.seen if self._share is not None else "",
            batch_rows=self._share.batch_rows if self._share is not None else None,
        )

    def _load(self, wanted: Mapping[str, WantedParameter]) -> tuple[int, int, tuple[str, ...]]:
        """Hand over the slices.

        Returns:
            the bytes read from files, the bytes of the slices, the parameters that no file has.
        """
        slices, bytes_read = read_slices(self._spec, wanted, self._link.fetched)
        bytes_held = sum(array.nbytes for array in slices.values())
        initial = tuple(name for name in wanted if name not in slices)
        if initial:
            print(f"no file has {', '.join(initial)}: left at the initial values of the network")
        self._runtime.load(slices)
        return bytes_read, bytes_held, initial

    def _predict_all(self) -> Mapping[str, Any] | None:
        """Deliver every batch; return the metrics where one rank has seen all that they need."""
        spec, runtime, metrics = self._spec, self._runtime, None
        if spec.task == "eval" and spec.rank_size == 1 and isinstance(runtime, Evaluator):
            self._batches_to_come()  # says how many they are
            metrics = runtime.evaluate(self._deliver)
        elif self._share is not None:
            for batch, rows in self._share.of(self._batches_to_come()):
                outputs = self._predict(batch)
                require_row_for_each_sample(spec.network, outputs, batch)
                self._deliver(outputs, rows=rows)
        else:
            for batch in self._batches_to_come():
                self._deliver(self._predict(batch), checksum(*arrays_of(batch)))
        if not self._batches and self._share is None:
            raise InputError(f"{spec.predict_data} gave no batch to predict")
        return metrics

    def _batches_to_come(self) -> Iterator[tuple[Any, ...]]:
        """Return the batches, and say how many they are, if they know and this rank delivers."""
        batches = self._runtime.batches()
        count = length_hint(batches)  # 0: nobody knows
        if count and self._share is not None:
            count = self._share.own(count)
        if count and (self._share is not None or self._spec.rank == OWNER_RANK):
            self._link.expects(count)
        return batches

    def _predict(self, batch: tuple[Any, ...]) -> tuple[np.ndarray, ...]:
        """Return the outputs of a batch, with its labels behind them where it has any."""
        inputs, labels = split_labels(batch, self._spec.task)
        outputs = self._runtime.predict(inputs)
        if not outputs:
            what = f"{self._spec.network}: construct returned nothing for batch {self._batches}"
            raise InputError(f"{what}; let it return a Tensor, or a tuple or dict of them")
        if labels and len(outputs) != 1:
            raise InputError(
                f"{self._spec.network} returns {len(outputs)} outputs, where an evaluation on"
                " several ranks needs one; evaluate with --ranks 1"
            )
        return outputs + tuple(map(array_of, labels))

    def _deliver(
        self, outputs: tuple[np.ndarray, ...], inputs: str = "", rows: Rows | None = None
    ) -> None:
        self._link.predictions(self._batches, outputs, inputs, rows)
        self._batches += 1

    def _enter(self, phase: str) -> None:
        now_s = time.monotonic()
        self._seconds[self._phase] = now_s - self._entered_s
        self._phase, self._entered_s = phase, now_s
        self._link.phase(phase)


def read_slices(
    spec: WorkerSpec, wanted: Mapping[str, WantedParameter], watch: Watch | None = None
) -> tuple[Mapping[str, np.ndarray], int]:
    """Return this rank's slice of every parameter, and how many bytes of files that took.

    Args:
        watch: is told how far it is while remote files are fetched.
    """
    needed = [name for name in wanted if not matches(name, spec.allow_missing)]
    if spec.checkpoint is None and not needed:
        return {}, 0
    if spec.checkpoint is None:
        raise InputError(
            f"{spec.network} has {len(wanted)} parameters, {needed[0]!r} is one of them, but the"
            " job names no checkpoint to load them from; add one, or to predict with initial"
            " values --allow-missing '*'"
        )
    key = read_key(spec.key_file, os.environ)
    cache = Cache.of(os.environ)
    checkpoint = open_checkpoint(spec.checkpoint, spec.strategy, key, cache)
    if spec.checkpoint_version not in (None, checkpoint.version):
        raise CheckpointChangedError(shown(spec.checkpoint))
    plan = plan_rank(checkpoint, wanted, spec.rank, spec.allow_missing)
    require_memory(plan)
    if spec.shares_weights:
        return read_once(spec, plan, lambda memory: execute(plan, watch, memory, spec.threads))
    return execute(plan, watch, threads=spec.threads), plan.bytes_to_read


def _device_memory_bytes(runtime: Runtime) -> int | None:
    return runtime.device_memory_bytes() if isinstance(runtime, OnDevice) else None


def peak_memory_bytes() -> int:
    """Return the most physical memory that this process has held (Linux: VmHWM)."""
    for line in Path("/proc/self/status").read_text(encoding="ascii").splitlines():
        if line.startswith("VmHWM:"):
            return int(line.split()[1]) * 1024  # the kernel says kB
    return 0
