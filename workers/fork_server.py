"""Bring the ranks of one host to life for the launcher, and report how each of them ended.

``python -m workers.fork_server FD LAUNCHER [MODULE ...]`` imports the modules once and says that
it is ready; every rank is a fork of it, or a fresh interpreter where a forked driver would not be
safe. It ends when the launcher hangs up, on purpose or because it was killed, and takes the
ranks with it; the ranks end when it is killed itself.
"""

from __future__ import annotations

import gc
import importlib
import io
import os
import select
import signal
import socket
import sys
import time
import traceback
from contextlib import suppress
from typing import Any, NoReturn

import psutil

from workers.channel import Channel
from workers.lifeline import adopt_orphans, die_with, live_on
from workers.output import log_error
from workers.spec import WorkerSpec
from workers.worker import run_process

FRESH_INTERPRETER = ("ascend", "gpu", "single")  # a device's driver must not be forked


class ForkServer:
    """The parent of every rank of this host."""

    def __init__(self, channel: Channel) -> None:
        self._channel = channel
        self._ranks: dict[int, int] = {}  # pid -> rank, of the ranks that run
        self._wakeup, self._wakeup_other_end = socket.socketpair()
        for end in (self._wakeup, self._wakeup_other_end):
            end.setblocking(False)
        signal.signal(signal.SIGCHLD, lambda number, frame: None)  # only to be woken up
        signal.pthread_sigmask(signal.SIG_SETMASK, ())  # whoever started us may block some
        signal.set_wakeup_fd(self._wakeup_other_end.fileno(), warn_on_full_buffer=False)

    def serve(self) -> None:
        """Do what the launcher says until it hangs up; then leave no process behind."""
        self._channel.send(event="ready")
        sources: list[Channel | socket.socket] = [self._channel, self._wakeup]
        while not self._channel.closed:
            readable, _, _ = select.select(sources, [], [])
            if self._wakeup in readable:
                self._wakeup.recv(1 << 10)
                self._bury_the_dead()
            if self._channel in readable:
                for command in self._channel.receive():
                    self._obey(command)
        self._end_ranks()

    def _obey(self, command: dict[str, Any]) -> None:
        if command["do"] == "start":
            self._start(WorkerSpec.from_json(command["spec"]))
            return
        if command["do"] == "log":
            self._write_to(command["path"])
            return
        for pid, rank in self._ranks.items():
            if rank == command["rank"]:  # else it has just ended
                os.kill(pid, command["signal"])

    @staticmethod
    def _write_to(log: str) -> None:
        """Move to a log; until now the output was memory, of which the launcher knows."""
        said = b""
        with suppress(OSError):  # a module has put something else in the place of that memory
            said = os.pread(1, os.fstat(1).st_size, 0)
        _redirect_output(log)
        with suppress(OSError):  # the disk is full, which costs the ranks their words, too
            os.write(1, said)

    def _start(self, spec: WorkerSpec) -> None:
        sys.stdout.flush()
        sys.stderr.flush()
        server = os.getpid()
        pid = os.fork()
        if pid == 0:
            self._become(spec, server)
        self._ranks[pid] = spec.rank
        self._channel.send(event="started", rank=spec.rank, pid=pid)

    def _become(self, spec: WorkerSpec, server: int) -> NoReturn:
        """Leave the server's group, files and output behind, and be the rank.

        The session stays the server's: Linux schedules each session as one group, and in
        sessions of their own idle threads that yield would get the share of ranks that work.
        """
        try:
            os.setpgid(0, 0)
            die_with(server)
            signal.set_wakeup_fd(-1)
            signal.signal(signal.SIGCHLD, signal.SIG_DFL)
            for end in (self._channel, self._wakeup, self._wakeup_other_end):
                end.close()
            _redirect_output(spec.log_file)
            if spec.device in FRESH_INTERPRETER:
                _execute_interpreter(spec)
            run_process(spec)
        except BaseException as error:
            log_error(error)
        finally:
            os._exit(1)

    def _bury_the_dead(self) -> None:
        while (pid := _some_dead_child()) is not None:
            if pid in self._ranks:
                _kill_group(pid)  # before the kernel may give its number to somebody else
            code = os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
            if pid in self._ranks:
                self._channel.send(
                    event="exited",
                    rank=self._ranks.pop(pid),
                    exit_code=max(code, 0),
                    signal=max(-code, 0),
                    at_s=time.monotonic(),
                )

    @staticmethod
    def _end_ranks() -> None:
        """Kill the ranks and whatever they have started, also what has left their groups."""
        while descendants := psutil.Process().children(recursive=True):
            for process in descendants:
                with suppress(psutil.NoSuchProcess):
                    process.kill()
            psutil.wait_procs(descendants, timeout=1)


def _redirect_output(log_file: str) -> None:
    flags = os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_APPEND
    log = os.open(log_file or os.devnull, flags, 0o644)
    for descriptor in (1, 2):
        os.dup2(log, descriptor)
    os.close(log)
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(line_buffering=True, errors="backslashreplace")


def _execute_interpreter(spec: WorkerSpec) -> NoReturn:
    """Be a new Python; the spec goes through memory, because command lines are public."""
    memory = os.memfd_create("spec", 0)  # without MFD_CLOEXEC: the new program reads it
    os.write(memory, spec.to_json().encode())
    os.lseek(memory, 0, os.SEEK_SET)
    arguments = [sys.executable, "-P", "-m", "workers", "--spec-fd", str(memory)]
    environment = {**spec.environment, "PYTHONPATH": os.environ.get("PYTHONPATH", "")}
    os.execve(sys.executable, arguments, environment)


def _some_dead_child() -> int | None:
    """Return the pid of a rank, or of what a rank had left behind; it stays to be waited for."""
    try:
        found = os.waitid(os.P_ALL, 0, os.WEXITED | os.WNOHANG | os.WNOWAIT)
    except ChildProcessError:
        return None
    return found.si_pid if found else None


def _kill_group(pid: int) -> None:
    with suppress(ProcessLookupError, PermissionError):
        os.killpg(pid, signal.SIGKILL)


def main() -> NoReturn:
    """Serve, and end without Python's exit handlers: those of the modules are the ranks' own."""
    exit_code = 1
    try:
        end, launcher, *modules = sys.argv[1:]
        die_with(int(launcher))  # while there are no ranks to be killed
        adopt_orphans()  # what outlives a rank is killed by this process
        gc.disable()  # modules stay; to look for garbage among them takes a tenth of the import
        for module in modules:
            importlib.import_module(module)
        gc.freeze()  # the ranks share these pages for as long as nobody writes to them
        gc.enable()
        channel = Channel(socket.socket(fileno=int(end)))
        live_on()
        ForkServer(channel).serve()
        exit_code = 0
    except BaseException:
        traceback.print_exc()
    finally:
        sys.stderr.flush()
        os._exit(exit_code)


if __name__ == "__main__":
    main()
