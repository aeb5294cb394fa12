"""Connect ranks that mpirun or srun started: messages of MPI, compared before data moves.

Open MPI itself would wait by spinning; this module polls and sleeps in between, so that more ranks
than cores get along and signals are heard. A rank that ends without ``close`` takes the job
with it: mpirun ends the others, and so does ``srun --kill-on-bad-exit``.
"""

from __future__ import annotations

import os
import time
from collections.abc import Mapping

import numpy as np
from mpi4py import MPI

from workers.spmd.errors import MeetingError, MismatchError

_CALL_BYTES = 1000  # of a call's name that are compared
_PIECE_BYTES = 1 << 22
_HASTE = 200  # polls before the first sleep
_LONGEST_SLEEP_S = 0.001

_Parts = Mapping[int, tuple[slice, ...]]


class MpiTransport:
    """One rank's lines to all ranks of its MPI job."""

    piece_bytes = _PIECE_BYTES

    def __init__(self, rank: int, rank_size: int) -> None:
        if MPI.COMM_WORLD.size != rank_size:
            raise MeetingError(
                f"the job has {rank_size} ranks, but MPI started {MPI.COMM_WORLD.size} processes;"
                f" use mpirun -n {rank_size} or srun -n {rank_size}"
            )
        self.rank, self.rank_size = rank, rank_size
        self.waiting_for: tuple[int, str] | None = None
        self._comm = MPI.COMM_WORLD.Split(0, rank)  # numbered as the job numbers its ranks

    def swap(
        self, call: str, group: tuple[int, ...], array: np.ndarray, gives: _Parts, takes: _Parts
    ) -> list[np.ndarray]:
        """See ``Transport.swap``."""
        self._compare(call, array.nbytes, [member for member in group if member != self.rank])
        parts = {
            member: array[part] if member == self.rank else np.empty_like(array[part], order="C")
            for member, part in takes.items()
        }
        receiving = {
            member: self._comm.Irecv([_bytes(part), MPI.BYTE], member)
            for member, part in parts.items()
            if member != self.rank
        }
        sending = [
            self._comm.Isend([_bytes(np.ascontiguousarray(array[part])), MPI.BYTE], member)
            for member, part in gives.items()
            if member != self.rank
        ]
        for member, request in receiving.items():
            self._wait([request], member, call)
        self._wait(sending, min(gives, default=self.rank), call)
        return list(parts.values())

    def close(self) -> None:
        """Blocks until all ranks are here: only then may one of them leave an MPI job."""
        others = [rank for rank in range(self.rank_size) if rank != self.rank]
        self._compare("the end of its data", 0, others)
        MPI.Finalize()

    def _compare(self, call: str, num_bytes: int, peers: list[int]) -> None:
        """Tell the peers the call and hear theirs."""
        ours = f"{call[:_CALL_BYTES]} ({num_bytes} bytes)".encode()
        theirs = {peer: bytearray(2 * _CALL_BYTES * 4) for peer in peers}
        hearing = {p: self._comm.Irecv([text, MPI.BYTE], p) for p, text in theirs.items()}
        telling = [self._comm.Isend([ours, MPI.BYTE], peer) for peer in peers]
        for peer, request in hearing.items():
            self._wait([request], peer, call)
            text = bytes(theirs[peer]).rstrip(b"\0")
            if text != ours:
                found = text.decode(errors="replace")
                raise MismatchError(self.rank, ours.decode(errors="replace"), peer, found)
        self._wait(telling, self.rank, call)

    def _wait(self, requests: list[MPI.Request], peer: int, call: str) -> None:
        """Return when all is done; ``peer`` is whom that depends on."""
        self.waiting_for = peer, call
        polls, pause_s = 0, 20e-6
        while not MPI.Request.Testall(requests):
            polls += 1
            if polls < _HASTE:
                os.sched_yield()
            else:
                time.sleep(pause_s)
                pause_s = min(2 * pause_s, _LONGEST_SLEEP_S)
        self.waiting_for = None


def _bytes(memory: np.ndarray) -> np.ndarray:
    return memory.reshape(-1).view(np.uint8)
