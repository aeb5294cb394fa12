"""Start the ranks on this host, through a fork server of their own. Parent only.

The fork server (workers/fork_server.py) is the parent of the ranks and tells how each of them
ended. The socket between it and this process ties their lives together: whichever of the two
dies, even by SIGKILL, the other one and the ranks learn it from the kernel.
"""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import time
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path

import psutil

from launcher.child import python_module, with_our_code
from launcher.curve import Where
from launcher.events import EngineLost, Exited
from launcher.host import look_around
from launcher.site import Site
from workers.channel import Channel
from workers.spec import WorkerSpec

# What forked ranks have in common, by device; the fork server imports it once.
PRELOAD: Mapping[str, tuple[str, ...]] = {
    "simulated": ("workers.runtimes.simulated",),
    "cpu": ("workers.runtimes.single",),
}
PRELOAD_FOR_WEB = ("workers.resharding.remote.http_store",)
END_S = 10.0  # for the fork server to kill the ranks; it needs milliseconds


class LocalStarter:
    """Starts ranks on this host. A ``Starter``."""

    collector = Where()

    def __init__(self, environment: Mapping[str, str] = os.environ) -> None:
        self._environment = environment

    def sites(self, ranks: int, limit_s: float) -> list[Site]:
        return [
            Site(ranks=tuple(range(ranks)), host=look_around(), environment=self._environment)
        ]

    def conclude(self, exit_code: int) -> None:
        pass

    def start(self, specs: Sequence[WorkerSpec], log: Path) -> LocalEngine:
        return LocalEngine(specs, log)


class LocalEngine:
    """The ranks of this host. They are starting when this exists."""

    def __init__(self, specs: Sequence[WorkerSpec], log: Path) -> None:
        self._specs, self._log = specs, log
        self._processes: dict[int, psutil.Process] = {}  # of the ranks that run
        self._unborn = {spec.rank: spec for spec in specs}  # until the fork server is ready
        self._ready = False
        self._never_born: list[tuple[int, int]] = []  # ranks, and the signals that ended them
        self._news = os.eventfd(0, os.EFD_NONBLOCK)  # that there are some of these
        ours, theirs = socket.socketpair()
        self._channel = Channel(ours)
        with theirs, open(log, "wb") as output:
            self._server = subprocess.Popen(
                self._command(theirs.fileno()),
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
                env=with_our_code(specs[0].environment),  # modules are preloaded in it
                pass_fds=[theirs.fileno()],
                start_new_session=True,  # Ctrl-C is for the launcher, which tells the ranks
            )

    @property
    def sources(self) -> Sequence[int]:
        return (self._channel.fileno(), self._news)

    def receive(self, at_s: float) -> list[Exited | EngineLost]:
        """Return the ranks that have ended, and the loss of the fork server."""
        events: list[Exited | EngineLost] = [
            Exited(rank, 0, number, at_s) for rank, number in self._never_born
        ]
        self._never_born.clear()
        with suppress(BlockingIOError):
            os.eventfd_read(self._news)
        for said in self._channel.receive():
            match said:
                case {"event": "ready"}:
                    self._ready = True
                    for spec in self._unborn.values():
                        self._channel.send(do="start", spec=spec.to_json())
                    self._unborn.clear()
                case {"event": "started", "rank": rank, "pid": pid}:
                    with suppress(psutil.NoSuchProcess):
                        self._processes[rank] = psutil.Process(pid)
                case {"event": "exited", "rank": rank, "exit_code": code, "signal": number}:
                    self._processes.pop(rank, None)
                    events.append(Exited(rank, code, number, said["at_s"]))
        if self._channel.closed:
            events.append(self._lost(at_s))
        return events

    def send_signal(self, rank: int, number: int) -> None:
        if rank not in self._unborn:
            self._channel.send(do="signal", rank=rank, signal=int(number))
        elif number in (signal.SIGTERM, signal.SIGKILL):  # a rank without stacks to show
            del self._unborn[rank]
            self._never_born.append((rank, number))
            os.eventfd_write(self._news, 1)

    def close(self) -> None:
        """Hang up: the fork server then kills the ranks and ends. Return when all are gone."""
        self._channel.close()
        os.close(self._news)
        if not self._ready:
            self._server.kill()  # it imports, for seconds maybe, and has no ranks
        try:
            self._server.wait(END_S)
        except subprocess.TimeoutExpired:
            self._server.kill()  # and the kernel kills the ranks
            self._server.wait()
        if self._server.returncode != 0:  # it has not done its work
            self._end_orphans()

    def _end_orphans(self) -> None:
        """Kill what the ranks have started, too, and wait for the end of the ranks."""
        for process in self._processes.values():
            with suppress(ProcessLookupError, PermissionError):
                os.killpg(process.pid, signal.SIGKILL)
        deadline_s = time.monotonic() + END_S
        while any(map(_lives, self._processes.values())) and time.monotonic() < deadline_s:
            time.sleep(0.01)  # they are no children of ours: nobody would wake us

    def _command(self, end: int) -> list[str]:
        spec = self._specs[0]
        modules = PRELOAD.get(spec.device, ())
        if modules and (spec.checkpoint or "").startswith(("http://", "https://")):
            modules += PRELOAD_FOR_WEB
        return python_module("workers.fork_server", str(end), *modules)

    def _lost(self, at_s: float) -> EngineLost:
        """Say how the fork server ended, which it does by itself only when we hang up."""
        with suppress(subprocess.TimeoutExpired):
            self._server.wait(END_S)
        code = self._server.returncode
        if code is None:
            return EngineLost(1, "the process that starts the ranks does not answer", at_s)
        how = f"was ended by signal {-code}" if code < 0 else f"left with exit code {code}"
        message = f"the process that starts the ranks {how}"
        if code == -signal.SIGKILL:
            message += "; likely out of memory (see dmesg), or killed from outside"
        said = self._log.read_text(encoding="utf-8", errors="replace").strip().splitlines()
        if said:
            message += f"; its last words: {said[-1]}"
        exit_code = 128 - code if code < 0 else max(code, 1)
        return EngineLost(exit_code, message, at_s, worth_retrying=self._ready)


def _lives(process: psutil.Process) -> bool:
    try:
        return bool(process.is_running() and process.status() != psutil.STATUS_ZOMBIE)
    except psutil.NoSuchProcess:
        return False
