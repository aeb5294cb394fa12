"""Hand arrays to another process of this host through memory that both see, without a socket.

The memory is cut into slots. Who fills one waits until the reader is done with it, so arrays never
pile up; the next batch is filled in while the reader works on the one before.
"""

from __future__ import annotations

import fcntl
import mmap
import os
import secrets
from collections.abc import Sequence

import numpy as np

SLOTS = 2
_ALIGNED = 64  # bytes


class Slots:
    """The writer's end."""

    def __init__(self) -> None:
        self.pid, self.name = os.getpid(), f"slots-{secrets.token_hex(8)}"
        self.descriptor = os.memfd_create(self.name, os.MFD_CLOEXEC | os.MFD_ALLOW_SEALING)
        fcntl.fcntl(self.descriptor, fcntl.F_ADD_SEALS, fcntl.F_SEAL_SHRINK)
        self._slot_bytes = 0
        self._view: np.ndarray = np.empty(0, np.uint8)
        self._next = 0

    def fits(self, arrays: Sequence[np.ndarray]) -> bool:
        """Say whether a slot holds the arrays; else all slots must be free to make them larger."""
        return sum(map(_room, arrays)) <= self._slot_bytes

    def put(self, arrays: Sequence[np.ndarray]) -> int:
        """Copy the arrays into the next slot; return where it begins."""
        if not self.fits(arrays):
            self._slot_bytes = max(_ALIGNED, sum(map(_room, arrays)))
            os.ftruncate(self.descriptor, SLOTS * self._slot_bytes)
            memory = mmap.mmap(self.descriptor, SLOTS * self._slot_bytes)
            self._view = np.frombuffer(memory, np.uint8)
        start = offset = self._next * self._slot_bytes
        self._next = (self._next + 1) % SLOTS
        for array in arrays:
            native = array.dtype.newbyteorder("=")
            place = self._view[offset : offset + array.nbytes].view(native)
            np.copyto(place.reshape(array.shape), array)
            offset += _room(array)
        return start

    def close(self) -> None:
        """Let go of the memory; the reader keeps what it has mapped. Allowed twice."""
        if self.descriptor >= 0:
            os.close(self.descriptor)
        self.descriptor, self._view = -1, np.empty(0, np.uint8)


class SlotReader:
    """The reader's end."""

    def __init__(self, pid: int, descriptor: int, name: str) -> None:
        """Open the memory of another process.

        Raises:
            OSError: it is not on this host, not ours to see, or not what was offered.
        """
        path = f"/proc/{pid}/fd/{descriptor}"
        if os.readlink(path) != f"/memfd:{name} (deleted)":
            raise FileNotFoundError(f"{path} is not {name}")
        self._descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
        if not fcntl.fcntl(self._descriptor, fcntl.F_GET_SEALS) & fcntl.F_SEAL_SHRINK:
            self.close()
            raise PermissionError(f"{path} could shrink while it is read")
        self._memory = memoryview(b"")

    def arrays(
        self, start: int, described: Sequence[tuple[tuple[int, ...], np.dtype]]
    ) -> tuple[np.ndarray, ...]:
        """Return views of the arrays of a slot; they hold until the writer is told to go on.

        Raises:
            ValueError: the memory is too small for them.
        """
        size = os.fstat(self._descriptor).st_size
        if size != len(self._memory):
            self._memory = memoryview(mmap.mmap(self._descriptor, size, prot=mmap.PROT_READ))
        found = []
        for shape, dtype in described:
            array: np.ndarray = np.ndarray(shape, dtype, self._memory, start)
            found.append(array)
            start += _room(array)
        return tuple(found)

    def close(self) -> None:
        os.close(self._descriptor)


def _room(array: np.ndarray) -> int:
    return -(-array.nbytes // _ALIGNED) * _ALIGNED
