"""Connect ranks that mpirun or srun started: messages of MPI, compared before data moves.

Open MPI itself would wait by spinning; this module polls and sleeps in between, so that more ranks
than cores get along and signals are heard. A rank that ends without ``close`` takes the job
with it: mpirun ends the others, and so does ``srun --kill-on-bad-exit``.
"""

from __future__ import annotations

import os
import struct
import time
from collections.abc import Mapping

import numpy as np
from mpi4py import MPI

from workers.spmd.board import THE_END
from workers.spmd.errors import MeetingError, MismatchError

_CALL_BYTES = 1000  # of a call's name that are compared
_PIECE_BYTES = 1 << 22
_ENCLOSED_BYTES = 1 << 14  # most of a part that goes in the same message as the call
_HEAD = struct.Struct("<QH")  # bytes of the array, bytes of the call's name
_HASTE = 5  # polls before the first sleep: others may need the core
_SHORTEST_SLEEP_S = 20e-6
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
        self._letters: dict[int, np.ndarray] = {}
        self._comm = MPI.COMM_WORLD.Split(0, rank)  # numbered as the job numbers its ranks

    def swap(
        self, call: str, group: tuple[int, ...], array: np.ndarray, gives: _Parts, takes: _Parts
    ) -> list[np.ndarray]:
        """See ``Transport.swap``."""
        parts = {
            member: array[part] if member == self.rank else np.empty_like(array[part], order="C")
            for member, part in takes.items()
        }
        given = {member: np.ascontiguousarray(array[part]) for member, part in gives.items()}
        self._exchange_letters(call, group, array.nbytes, given, parts)
        large = {m: p for m, p in parts.items() if m != self.rank and p.nbytes > _ENCLOSED_BYTES}
        receiving = {m: self._comm.Irecv([_bytes(p), MPI.BYTE], m) for m, p in large.items()}
        sending = [
            (member, self._comm.Isend([_bytes(part), MPI.BYTE], member))
            for member, part in given.items()
            if member != self.rank and part.nbytes > _ENCLOSED_BYTES
        ]
        for member, request in (*receiving.items(), *sending):
            self._wait(request, member, call)
        return list(parts.values())

    def close(self) -> None:
        """Blocks until all ranks are here: only then may one of them leave an MPI job."""
        self._exchange_letters(THE_END, tuple(range(self.rank_size)), 0, {}, {})
        MPI.Finalize()

    def _exchange_letters(
        self,
        call: str,
        group: tuple[int, ...],
        num_bytes: int,
        given: Mapping[int, np.ndarray],
        parts: Mapping[int, np.ndarray],
    ) -> None:
        """Tell the group the call and hear theirs; small parts come in the same letter."""
        name = call.encode()[:_CALL_BYTES]
        head = _HEAD.pack(num_bytes, len(name)) + name
        others = [member for member in group if member != self.rank]
        hearing = {m: self._comm.Irecv([self._letter_of(m), MPI.BYTE], m) for m in others}
        telling = []
        for member in others:
            part = given.get(member)
            enclosed = part is not None and part.nbytes <= _ENCLOSED_BYTES
            written = head + _bytes(part).tobytes() if part is not None and enclosed else head
            telling.append((member, self._comm.Isend([written, MPI.BYTE], member)))
        for member, request in hearing.items():
            self._wait(request, member, call)
            letter = self._letters[member].data
            if letter[: len(head)] != head:
                raise MismatchError(self.rank, _in_words(head), member, _in_words(letter))
            taken = parts.get(member)
            if taken is not None and taken.nbytes <= _ENCLOSED_BYTES:
                _bytes(taken).data[:] = letter[len(head) : len(head) + taken.nbytes]
        for member, request in telling:
            self._wait(request, member, call)

    def _letter_of(self, member: int) -> np.ndarray:
        """Return the memory for what a member writes."""
        if member not in self._letters:
            size = _HEAD.size + _CALL_BYTES + _ENCLOSED_BYTES
            self._letters[member] = np.empty(size, np.uint8)
        return self._letters[member]

    def _wait(self, request: MPI.Request, peer: int, call: str) -> None:
        """Return when a message is through; ``peer`` is whom that depends on."""
        self.waiting_for = peer, call
        polls, pause_s = 0, _SHORTEST_SLEEP_S
        while not request.Test():
            polls += 1
            if polls < _HASTE:
                os.sched_yield()
            else:
                time.sleep(pause_s)
                pause_s = min(2 * pause_s, _LONGEST_SLEEP_S)
        self.waiting_for = None


def _in_words(letter: bytes | memoryview) -> str:
    num_bytes, size = _HEAD.unpack_from(letter)
    name = bytes(letter[_HEAD.size : _HEAD.size + size]).decode(errors="replace")
    return f"{name} with {num_bytes} bytes"


def _bytes(memory: np.ndarray) -> np.ndarray:
    return memory.reshape(-1).view(np.uint8)
