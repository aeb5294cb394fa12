"""Hold what the ranks of a group share on one host: memory to swap data in, and a gate.

The gate makes a rank sleep once in a call, whatever the size of the group: all ranks but the last
take one of its tickets and wait; the last one finds none and lets everybody pass. The memory has
two rows for each rank, used in turn: whoever passes the gate knows that the others have read what
they needed of the call before. All of it is anonymous, so nothing can outlive the ranks.
"""

from __future__ import annotations

import mmap
import os
import struct
from typing import Any

import numpy as np

from workers.spmd.errors import MismatchError

ROW_BYTES = 1 << 20  # what a rank can give in one call; small enough to stay in a cache
FDS = 4  # tickets, two gates used in turn, memory
_VIEWS = 1000  # of rows that are kept
_HEAD_BYTES = 1 << 10
_HEAD = struct.Struct("<QH")  # bytes of data, bytes of the call's name
_CALL_BYTES = _HEAD_BYTES - _HEAD.size  # of a name that are compared
# What data is while it is copied: MindSpore's bfloat16 for NumPy crashes on empty arrays.
_PLAIN = {1: np.uint8, 2: np.uint16, 4: np.uint32, 8: np.uint64}


class SharedGroup:
    """One rank's end of what its group shares."""

    def __init__(self, members: tuple[int, ...], rank: int, fds: list[int]) -> None:
        """Take over the descriptors that ``create`` made, here or in the process of a peer."""
        self.members, self.rank, self.calls = members, rank, 0
        self._tickets, *self._gates, memory = fds
        count = len(members)
        mapped = mmap.mmap(memory, 2 * count * (_HEAD_BYTES + ROW_BYTES))
        os.close(memory)
        data = np.frombuffer(mapped, np.uint8, offset=2 * count * _HEAD_BYTES)
        self._mapped, self._rows = mapped, data.reshape(2, count, ROW_BYTES)
        self.place = {member: place for place, member in enumerate(members)}
        self._own = self.place[rank]
        self._said = [("", -1), ("", -1)]  # call and bytes, in each turn
        self._head = [b"", b""]  # the same, as the others read it
        self._views: dict[tuple[Any, ...], tuple[np.ndarray, list[np.ndarray]]] = {}

    @staticmethod
    def create(count: int) -> list[int]:
        """Return the descriptors of what ``count`` ranks will share."""
        flags = os.EFD_SEMAPHORE | os.EFD_NONBLOCK | os.EFD_CLOEXEC
        memory = os.memfd_create("group")
        os.ftruncate(memory, 2 * count * (_HEAD_BYTES + ROW_BYTES))
        return [os.eventfd(count - 1, flags), os.eventfd(0, flags), os.eventfd(0, flags), memory]

    @property
    def gate(self) -> int:
        """The descriptor that is readable when this rank may pass."""
        return self._gates[self.calls & 1]

    def put(self, array: np.ndarray, call: str) -> list[np.ndarray]:
        """Begin a call with what this rank gives; return the rows of all, readable past the gate.

        A row has the shape and the dtype of ``array``, which has at most ``ROW_BYTES``.
        """
        self.calls += 1
        turn = self.calls & 1
        own, rows = self._rows_like(array, turn)
        own[...] = array.view(own.dtype)
        if self._said[turn] != (call, array.nbytes):
            self._said[turn] = (call, array.nbytes)
            name = call.encode()[:_CALL_BYTES]
            self._head[turn] = head = _HEAD.pack(array.nbytes, len(name)) + name
            begin = self._head_of(self._own)
            self._mapped[begin : begin + len(head)] = head
        return rows

    def _rows_like(self, array: np.ndarray, turn: int) -> tuple[np.ndarray, list[np.ndarray]]:
        """Return this rank's row, to be written, and the rows of all."""
        kind = (turn, array.dtype, array.shape)
        if kind not in self._views:
            if len(self._views) >= _VIEWS:
                self._views.clear()
            plain = _PLAIN.get(array.itemsize, array.dtype)
            rows: np.ndarray = self._rows[turn, :, : array.nbytes]
            rows = rows.view(plain).reshape(len(self.members), *array.shape)
            self._views[kind] = rows[self._own, ...], [*rows.view(array.dtype)]
        return self._views[kind]

    def arrive(self) -> bool:
        """Come to the gate. True: all are here, and pass."""
        try:
            os.eventfd_read(self._tickets)
        except BlockingIOError:
            others = len(self.members) - 1
            os.eventfd_write(self._tickets, others)  # before anybody can come again
            os.eventfd_write(self.gate, others)
            return True
        return False

    def leave(self) -> None:
        """Pass the gate, which is open."""
        os.eventfd_read(self.gate)

    def require_same_call(self) -> None:
        """Compare what the members said when they began the call that has passed the gate.

        Raises:
            MismatchError: another rank is in another call, or gives more or less.
        """
        own = self._head[self.calls & 1]
        size = len(own)
        for place, member in enumerate(self.members):
            begin = self._head_of(place)
            if self._mapped[begin : begin + size] != own:
                other = self._mapped[begin : begin + _HEAD_BYTES]
                raise MismatchError(self.rank, _in_words(own), member, _in_words(other))

    def close(self) -> None:
        """Let go; the memory goes with the last rank that has it."""
        for descriptor in (self._tickets, *self._gates):
            os.close(descriptor)

    def _head_of(self, place: int) -> int:
        return ((self.calls & 1) * len(self.members) + place) * _HEAD_BYTES


def _in_words(head: bytes) -> str:
    num_bytes, size = _HEAD.unpack_from(head)
    return f"{head[_HEAD.size:][:size].decode(errors='replace')} with {num_bytes} bytes"
