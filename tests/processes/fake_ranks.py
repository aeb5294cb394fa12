"""Runtimes in NumPy for ranks that succeed, and for ranks that end in every bad way there is.

Not a test: the tests name a class in ``WorkerSpec.device``, and real processes run it. What
rank 1 does is what the class is called after; the other ranks are as they should be.
"""

from __future__ import annotations

import ctypes
import json
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping
from contextlib import suppress
from dataclasses import replace
from itertools import islice
from pathlib import Path
from threading import Event
from typing import Any

import numpy as np

from workers.data_files import DataFiles
from workers.dealing import own_batches
from workers.errors import PeerLostError
from workers.spec import WorkerSpec
from workers.spmd.collectives import all_reduce
from workers.spmd.transport import connect


class Healthy:
    """Three batches of two rows."""

    def __init__(self, spec: WorkerSpec) -> None:
        self.spec, self.odd = spec, spec.rank == 1
        self.folder = Path(spec.log_file).parent

    def open(self) -> None:
        print(f"pid {os.getpid()} of {os.getppid()}")

    def wanted_parameters(self) -> Mapping[str, Any]:
        return {}

    def load(self, slices: Mapping[str, np.ndarray]) -> None:
        pass

    def compile(self) -> None:
        if self.odd:
            self.misbehave()

    def misbehave(self) -> None:
        pass

    def batches(self) -> Iterator[tuple[np.ndarray]]:
        for number in range(3):
            yield (np.full((2, 3), number, np.float32),)

    def predict(self, batch: tuple[np.ndarray]) -> tuple[np.ndarray]:
        return (batch[0] * 10,)

    def waiting_for(self) -> tuple[int, str] | None:
        return None

    def close(self) -> None:
        pass

    def mark(self, name: str) -> None:
        """Tell other processes how far this rank is."""
        (self.folder / name).touch()

    def await_verified(self) -> None:
        """Wait until two batches are; the first of them would not be predicted again."""
        progress = self.folder.parent / "progress.json"
        while json.loads(progress.open().readline())["batches"] < 1:
            time.sleep(0.01)

    def await_mark(self, name: str) -> None:
        while not (self.folder / name).exists():
            time.sleep(0.01)


class Raises(Healthy):
    def misbehave(self) -> None:
        raise ValueError("the weights are bad")


class OnlyWrites:
    """What scripts put in the place of a stream, to write to two places."""

    def write(self, text: str) -> None:
        sys.__stdout__.write(text)


class ReplacesStdout(Healthy):
    """Rank 1 prints a line without an end through a stream that cannot be flushed."""

    def misbehave(self) -> None:
        sys.stdout = OnlyWrites()
        print("begun", end="")


class RaisesWithoutStderr(Raises):
    def misbehave(self) -> None:
        sys.stderr.close()
        super().misbehave()


class ExitsEarly(Healthy):
    def misbehave(self) -> None:
        sys.exit(0)


class ExitsEarlyWithoutPython(Healthy):
    def misbehave(self) -> None:
        os._exit(0)


class Segfaults(Healthy):
    def misbehave(self) -> None:
        ctypes.string_at(0)


class Aborts(Healthy):
    def misbehave(self) -> None:
        os.abort()


class Waits(Healthy):
    """Rank 1 waits for ever, and says that it does."""

    def misbehave(self) -> None:
        self.mark("waiting")
        Event().wait()


class Hangs(Waits):
    """Rank 1 waits for ever in the phase that the job names in the place of a network."""

    def misbehave_in(self, phase: str) -> None:
        if self.odd and self.spec.network == phase:
            super().misbehave()

    def misbehave(self) -> None:
        self.misbehave_in("compile")

    def open(self) -> None:
        self.misbehave_in("context")

    def wanted_parameters(self) -> Mapping[str, Any]:
        self.misbehave_in("layout")
        return {}

    def load(self, slices: Mapping[str, np.ndarray]) -> None:
        self.misbehave_in("load")

    def predict(self, batch: tuple[np.ndarray]) -> tuple[np.ndarray]:
        self.misbehave_in("predict")
        return super().predict(batch)


class MissedByAll(Waits):
    """Rank 1 waits for ever, and the others wait for it."""

    def compile(self) -> None:
        self.misbehave()

    def waiting_for(self) -> tuple[int, str] | None:
        return None if self.odd else (1, "AllReduce after MatMul")


class AllWait(Waits):
    """Every rank waits for ever, and a process that rank 1 has started does too."""

    def compile(self) -> None:
        if self.odd:
            sleep = "import time; time.sleep(3600)"
            subprocess.Popen([sys.executable, "-c", sleep], start_new_session=True)
        self.misbehave()


class DiesOnce(Healthy):
    """Rank 1 dies before its third batch, the first time."""

    def predict(self, batch: tuple[np.ndarray]) -> tuple[np.ndarray]:
        died = self.folder.parent / "died"  # logs are set aside, this is not
        if self.odd and batch[0][0, 0] == 2 and not died.exists():
            died.touch()
            self.await_verified()
            os.kill(os.getpid(), signal.SIGSEGV)
        return super().predict(batch)

    def batches(self) -> Iterator[tuple[np.ndarray]]:
        return islice(super().batches(), self.spec.first_batch, None)


class IgnoresSigterm(Waits):
    """Rank 1 waits for ever and does not end when told to; then rank 0 fails."""

    def compile(self) -> None:
        if self.odd:
            signal.signal(signal.SIGTERM, lambda *_: self.mark("told"))
            self.mark("waiting")
            while True:
                Event().wait(60)
        if self.spec.rank == 0:
            self.await_mark("waiting")
            raise ValueError("rank 0 fails")


class AllIgnoreSigterm(IgnoresSigterm):
    def compile(self) -> None:
        self.odd = True
        super().compile()


class Floods(Healthy):
    """Rank 1 prints 32 MiB in short lines, and then one line of 2 GiB."""

    def misbehave(self) -> None:
        for _ in range(32):
            sys.stdout.write("all work and no play makes a long log\n" * (1 << 15))
        sys.stdout.flush()
        os.ftruncate(1, 2 << 30)  # a hole counts as so many NUL characters, and takes no disk
        print()


class SlowToSay(Exception):
    """Its text is to be had only when rank 0 has failed, too."""

    def __init__(self, rank: FailsFirst) -> None:
        self.rank = rank

    def __str__(self) -> str:
        self.rank.mark("failed")
        while "ValueError" not in (self.rank.folder / "rank_0.log").read_text():
            time.sleep(0.001)
        return "the weights are bad"


class FailsFirst(Healthy):
    """Rank 1 fails, and then all others, with the same words, which may be heard before its own."""

    def compile(self) -> None:
        if self.odd:
            raise SlowToSay(self)
        self.await_mark("failed")
        raise ValueError("rank 1 does not answer")


class PredictsMuch(Healthy):
    """A batch is 2 MiB; the third one begins when the others are verified and on the disk."""

    def predict(self, batch: tuple[np.ndarray]) -> tuple[np.ndarray]:
        if batch[0][0, 0] == 2:
            self.await_verified()
        return (np.broadcast_to(batch[0][:, :1], (2, 1 << 18)).copy(),)


class MeetsStrangers(Healthy):
    """Others than ranks talk to the collector, while the ranks are at work."""

    def misbehave(self) -> None:
        assert self.spec.collector is not None
        host, port = self.spec.collector.endpoint.removeprefix("tcp://").split(":")
        lines = [socket.create_connection((host, int(port))) for _ in range(3)]
        with suppress(ConnectionError):  # hung up on
            lines[0].sendall(b"GET / HTTP/1.1\r\n\r\n" + bytes(1 << 20))
        lines[1].sendall(b"\xff")  # the first byte of a greeting, and never the next
        with suppress(ConnectionError):
            for _ in range(1 << 10):  # 1 GiB
                lines[2].sendall(bytes(1 << 20))
        self.lines = lines


class Disagrees(Healthy):
    def predict(self, batch: tuple[np.ndarray]) -> tuple[np.ndarray]:
        (output,) = super().predict(batch)
        return (output + 1 if self.odd and batch[0][0, 0] == 2 else output,)


class PredictsLess(Healthy):
    def batches(self) -> Iterator[tuple[np.ndarray]]:
        batches = list(super().batches())
        return iter(batches[:2] if self.odd else batches)


class LosesPeer(Healthy):
    """The other ranks notice that rank 1 is gone, and say so before it really is."""

    def compile(self) -> None:
        if self.odd:
            for rank in range(self.spec.rank_size):
                if rank != self.spec.rank:
                    self.await_mark(f"lost-{rank}")
            os.kill(os.getpid(), signal.SIGKILL)
        self.mark(f"lost-{self.spec.rank}")
        raise PeerLostError(self.spec.rank, 1, "all-gather")


class LeavesProcesses(Healthy):
    """Rank 1 is done, but what it has started is not."""

    def misbehave(self) -> None:
        sleep = "import time; time.sleep(3600)"
        for own_session in (False, True):
            subprocess.Popen([sys.executable, "-c", sleep], start_new_session=own_session)


class ShowsItself(Healthy):
    """The output is what the process can see of itself."""

    def predict(self, batch: tuple[np.ndarray]) -> tuple[np.ndarray]:
        command = b"".join(Path("/proc/self/cmdline").read_bytes().split(b"\0"))
        assert self.spec.collector is not None
        facts = (
            os.getpgid(0) == os.getpid() and os.getsid(0) == os.getppid(),
            dict(os.environ) == dict(self.spec.environment),
            ctypes.CDLL(None).getenv(b"NOT_OF_THIS_RANK") == 0,
            self.spec.collector.secret_key.encode() not in command,
            "mindspore" not in sys.modules,
        )
        return (np.array(facts),)


class LastSegfaults(Healthy):
    """The rank with the highest number dies."""

    def compile(self) -> None:
        if self.spec.rank == self.spec.rank_size - 1:
            ctypes.string_at(0)


class ShowsItsSlot(Healthy):
    """The output is whether MPI in this process would know it as its rank."""

    def predict(self, batch: tuple[np.ndarray]) -> tuple[np.ndarray]:
        return (np.array([os.environ["OMPI_COMM_WORLD_RANK"] == str(self.spec.rank)]),)


class Streams(Healthy):
    """The output is the input, read from files."""

    def batches(self) -> Iterator[tuple[np.ndarray]]:
        files = DataFiles(self.spec.predict_data, self.spec.batch_size)
        yield from files.read_ahead(own_batches(self.spec, len(files)))

    def predict(self, batch: tuple[np.ndarray]) -> tuple[np.ndarray]:
        return batch


class StreamsUntilFive(Streams):
    """Waits at the first sample from 5 on until it is told to go on."""

    def predict(self, batch: tuple[np.ndarray]) -> tuple[np.ndarray]:
        if batch[0].max() >= 5 and not Path(self.spec.predict_data).with_name("go-on").exists():
            Event().wait()
        return batch


class ShowsItsCores(Healthy):
    """The output is the cores that the process may run on."""

    def predict(self, batch: tuple[np.ndarray]) -> tuple[np.ndarray]:
        return (np.array(sorted(os.sched_getaffinity(0))),)


class MeetsThroughMpi(Healthy):
    """The output is the sum of what the ranks have."""

    def compile(self) -> None:
        self.line = connect(replace(self.spec, transport="mpi"))

    def batches(self) -> Iterator[tuple[np.ndarray]]:
        yield from super().batches()
        self.line.close()

    def predict(self, batch: tuple[np.ndarray]) -> tuple[np.ndarray]:
        everybody = tuple(range(self.spec.rank_size))
        return (all_reduce(self.line, everybody, batch[0] + 1, "sum", "AllReduce"),)

    def waiting_for(self) -> tuple[int, str] | None:
        return self.line.waiting_for


class DiesAmongMpi(MeetsThroughMpi):
    """Rank 1 is killed while the others wait for it in a collective."""

    def predict(self, batch: tuple[np.ndarray]) -> tuple[np.ndarray]:
        if self.odd and batch[0][0, 0] == 1:
            os.kill(os.getpid(), signal.SIGKILL)
        return super().predict(batch)
