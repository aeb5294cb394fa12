"""Start the ranks on this host, through a fork server of their own. Parent only.

The fork server (workers/fork_server.py) is the parent of the ranks and tells how each of them
ended. The socket between it and this process ties their lives together: whichever of the two
dies, even by SIGKILL, the other one and the ranks learn it from the kernel.
"""

from __future__ import annotations

import fcntl
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
from launcher.events import EngineLost, Exited
from launcher.host import look_around
from launcher.site import Site, Where
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
    """Starts ranks on this host. A ``Starter``, to be closed."""

    collector, waits = Where(), False

    def __init__(self, environment: Mapping[str, str] = os.environ) -> None:
        self._environment = environment
        self._server: ForkServer | None = None  # that waits for its ranks

    def sites(self, ranks: int, limit_s: float) -> list[Site]:
        return [
            Site(ranks=tuple(range(ranks)), host=look_around(), environment=self._environment)
        ]

    def conclude(self, exit_code: int) -> None:
        pass

    def get_ready(self, spec: WorkerSpec) -> None:
        """Start the fork server: it imports for longer than all checks of a job take."""
        self._server = ForkServer(spec)

    def start(self, specs: Sequence[WorkerSpec], log: Path) -> LocalEngine:
        server, self._server = self._server or ForkServer(specs[0]), None
        return LocalEngine(specs, server, log)

    def close(self) -> None:
        """End the fork server if there came no ranks for it."""
        if self._server is not None:
            self._server.close()


class ForkServer:
    """The process of which the ranks of this host will be forks."""

    def __init__(self, spec: WorkerSpec) -> None:
        """Have it import what the ranks need; all of them need the same."""
        self.is_ready = False  # to start ranks: it has said so
        self._log: Path | None = None
        # what it says before it has a log
        self._early = os.fdopen(os.memfd_create("engine.log"), "rb", buffering=0)
        ours, theirs = _line()
        self.channel = Channel(ours)
        with theirs:
            self.process = subprocess.Popen(
                _command(spec, theirs.fileno()),
                stdin=subprocess.DEVNULL,
                stdout=self._early,
                stderr=subprocess.STDOUT,
                env=with_our_code(spec.environment),  # modules are preloaded in it
                pass_fds=[theirs.fileno()],
                start_new_session=True,  # Ctrl-C is for the launcher, which tells the ranks
            )

    def write_to(self, log: Path) -> None:
        """Have it write what it has to say to a file, and what it has said before.

        Raises:
            OSError: the file cannot be written.
        """
        log.write_bytes(b"")
        self._log = log
        self.channel.send(do="log", path=str(log))

    def last_words(self, log: Path) -> str:
        """Return what it has said, once it is gone; it may not have come to writing that down."""
        said = log.read_bytes()
        if not said:
            self._early.seek(0)
            said = self._early.read()
            with suppress(OSError):  # the disk is full; the words are more worth
                log.write_bytes(said)
        return said.decode(errors="replace")

    def close(self) -> None:
        """Hang up: it then kills the ranks and ends. Return when it is gone."""
        self._hang_up()
        if self._log is not None and not self.is_ready:
            with suppress(OSError):  # whoever asks why it took so long finds what it said
                self.last_words(self._log)
        self._early.close()

    def _hang_up(self) -> None:
        self.channel.close()
        if not self.is_ready:
            self.process.kill()  # it imports, for seconds maybe, and has no ranks
        try:
            self.process.wait(END_S)
        except subprocess.TimeoutExpired:
            self.process.kill()  # and the kernel kills the ranks
            self.process.wait()


class LocalEngine:
    """The ranks of this host. They start as soon as their fork server is ready."""

    def __init__(self, specs: Sequence[WorkerSpec], server: ForkServer, log: Path) -> None:
        try:
            server.write_to(log)
        except OSError:
            server.close()
            raise
        self._server, self._channel, self._log = server, server.channel, log
        self._processes: dict[int, psutil.Process] = {}  # of the ranks that run
        self._unborn = {spec.rank: spec for spec in specs}  # until the fork server is ready
        self._never_born: list[tuple[int, int]] = []  # ranks, and the signals that ended them
        self._news = os.eventfd(0, os.EFD_NONBLOCK)  # that there are some of these

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
                    self._server.is_ready = True
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
        """Have the fork server kill the ranks and end. Return when all are gone."""
        os.close(self._news)
        self._server.close()
        if self._server.process.returncode != 0:  # it has not done its work
            self._end_orphans()

    def _end_orphans(self) -> None:
        """Kill what the ranks have started, too, and wait for the end of the ranks."""
        for process in self._processes.values():
            with suppress(ProcessLookupError, PermissionError):
                os.killpg(process.pid, signal.SIGKILL)
        deadline_s = time.monotonic() + END_S
        while any(map(_lives, self._processes.values())) and time.monotonic() < deadline_s:
            time.sleep(0.01)  # they are no children of ours: nobody would wake us

    def _lost(self, at_s: float) -> EngineLost:
        """Say how the fork server ended, which it does by itself only when we hang up."""
        with suppress(subprocess.TimeoutExpired):
            self._server.process.wait(END_S)
        code = self._server.process.returncode
        if code is None:
            return EngineLost(1, "the process that starts the ranks does not answer", at_s)
        how = f"was ended by signal {-code}" if code < 0 else f"left with exit code {code}"
        message = f"the process that starts the ranks {how}"
        if code == -signal.SIGKILL:
            message += "; likely out of memory (see dmesg), or killed from outside"
        said = self._server.last_words(self._log).strip().splitlines()
        if said:
            message += f"; its last words: {said[-1]}"
        exit_code = 128 - code if code < 0 else max(code, 1)
        return EngineLost(exit_code, message, at_s, worth_retrying=self._server.is_ready)


def _command(spec: WorkerSpec, end: int) -> list[str]:
    modules = PRELOAD.get(spec.device, ())
    if modules and (spec.checkpoint or "").startswith(("http://", "https://")):
        modules += PRELOAD_FOR_WEB
    return python_module("workers.fork_server", str(end), str(os.getpid()), *modules)


def _line() -> tuple[socket.socket, socket.socket]:
    """Return two ends of a line, of which a child may inherit the other one.

    That is none of 0, 1 and 2, which are the child's own, though they be free here.
    """
    ours, theirs = socket.socketpair()
    with theirs:
        return ours, socket.socket(fileno=fcntl.fcntl(theirs, fcntl.F_DUPFD_CLOEXEC, 3))


def _lives(process: psutil.Process) -> bool:
    try:
        return bool(process.is_running() and process.status() != psutil.STATUS_ZOMBIE)
    except psutil.NoSuchProcess:
        return False
