"""Connect the ranks of one host with each other: a socket for words, shared memory for data.

Every pair of ranks has a Unix socket. A rank that dies closes its sockets, so whoever waits for
it knows at once. Data lies in anonymous files (memfd) whose descriptors travel through the
sockets: nothing has a name in the file system, so nothing can outlive the job.
"""

from __future__ import annotations

import mmap
import os
import socket
import struct
import time
from collections import deque
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass

import numpy as np

from workers.errors import PeerLostError
from workers.spmd.errors import MeetingError, MismatchError

SLOTS = 2  # a rank fills one while its peers still read the other
_CREDENTIALS = struct.Struct("3i")  # pid, uid, gid: SO_PEERCRED
_HELLO = struct.Struct("I")  # rank
_HEAD = struct.Struct("?BQ")  # of a word: ready, slot, number of bytes
_CALL_LIMIT = 1000  # characters of a call that are compared
_MESSAGE_LIMIT = _HEAD.size + 4 * _CALL_LIMIT

_Parts = Mapping[int, tuple[slice, ...]]  # rank -> which part of an array


@dataclass(frozen=True)
class _Word:
    """What one rank tells another: data is ready in a slot, or has been read from it."""

    ready: bool  # False: the slot may be filled again
    slot: int
    num_bytes: int = 0
    call: str = ""  # the collective the rank is in

    def encode(self) -> bytes:
        head = _HEAD.pack(self.ready, self.slot, self.num_bytes)
        return head + self.call.encode()

    @classmethod
    def decode(cls, data: bytes) -> _Word:
        ready, slot, num_bytes = _HEAD.unpack(data[: _HEAD.size])
        return cls(ready, slot, num_bytes, data[_HEAD.size :].decode(errors="replace"))


class _Slot:
    """A shared buffer that one rank fills and others read."""

    def __init__(self, fd: int) -> None:
        self.fd = fd
        self.memory = np.empty(0, dtype=np.uint8)

    def view(self, num_bytes: int, writable: bool) -> np.ndarray:
        """Return the first bytes, mapping (and, for the writer, growing) the file as needed."""
        if self.memory.size < num_bytes:
            if writable:
                os.ftruncate(self.fd, num_bytes)
            access = mmap.PROT_READ | (mmap.PROT_WRITE if writable else 0)
            mapped = mmap.mmap(self.fd, num_bytes, mmap.MAP_SHARED, access)
            self.memory = np.frombuffer(mapped, dtype=np.uint8)
        return self.memory[:num_bytes]


class _Peer:
    """Another rank: its socket, its slots, and the words that came before they were needed."""

    def __init__(self, rank: int, line: socket.socket, fds: list[int]) -> None:
        self.rank, self.line = rank, line
        self.slots = [_Slot(fd) for fd in fds]
        self.ready: deque[_Word] = deque()


class Mesh:
    """One rank's lines to the other ranks of its host. Not for threads."""

    def __init__(self, rank: int, rank_size: int, job_id: str) -> None:
        """Connect to every other rank. Blocks until all of them have come, however long."""
        self.rank, self.rank_size = rank, rank_size
        self._own = [_Slot(os.memfd_create(f"rank{rank}")) for _ in range(SLOTS)]
        self._reading: list[set[int]] = [set() for _ in range(SLOTS)]  # peers not done with a slot
        self._next = 0  # slot
        self._peers: dict[int, _Peer] = {}
        self.waiting_for: tuple[int, str] | None = None  # peer and call, while blocked
        try:
            self._connect(job_id)
        except BaseException:
            self.close()
            raise

    def swap(
        self, call: str, array: np.ndarray, gives: _Parts, takes: _Parts
    ) -> Iterator[np.ndarray]:
        """See ``Transport.swap``."""
        self._publish(array, gives, call)
        for member, part in takes.items():
            yield (array if member == self.rank else self._read(member, array, call))[part]
        self._done(takes, call)

    def _publish(self, array: np.ndarray, readers: Iterable[int], call: str) -> None:
        """Let others read an array. Returns as soon as it lies in shared memory."""
        slot = self._next
        self._next = (slot + 1) % SLOTS
        for peer in sorted(self._reading[slot]):
            while peer in self._reading[slot]:
                self._hear(self._peers[peer], call)
        np.copyto(_typed(self._own[slot].view(array.nbytes, writable=True), array), array)
        word = _Word(True, slot, array.nbytes, call[:_CALL_LIMIT]).encode()
        for member in readers:
            if member != self.rank:
                self._say(self._peers[member], word, call)
                self._reading[slot].add(member)

    def _read(self, member: int, like: np.ndarray, call: str) -> np.ndarray:
        """Return what another rank published in this call, in its own memory."""
        peer = self._peers[member]
        while not peer.ready:
            self._hear(peer, call)
        word = peer.ready[0]
        if word.call != call[:_CALL_LIMIT]:
            raise MismatchError(self.rank, call, member, word.call)
        if word.num_bytes != like.nbytes:
            peer_call = f"the same with {word.num_bytes} bytes"
            raise MismatchError(self.rank, f"{call} with {like.nbytes} bytes", member, peer_call)
        return _typed(peer.slots[word.slot].view(like.nbytes, writable=False), like)

    def _done(self, members: Iterable[int], call: str) -> None:
        """Tell others that this rank has read what they published."""
        for member in members:
            if member == self.rank:
                continue
            peer = self._peers[member]
            word = peer.ready.popleft()
            try:
                peer.line.send(_Word(False, word.slot).encode())
            except (BrokenPipeError, ConnectionResetError):
                continue  # it has finished, and waits for nobody any more

    def close(self) -> None:
        """Hang up. What was published stays readable for peers that have mapped it."""
        for peer in self._peers.values():
            peer.line.close()
            for slot in peer.slots:
                os.close(slot.fd)
        self._peers.clear()
        for slot in self._own:
            os.close(slot.fd)
        self._own.clear()

    def _say(self, peer: _Peer, word: bytes, call: str) -> None:
        try:
            peer.line.send(word)
        except (BrokenPipeError, ConnectionResetError) as error:
            raise PeerLostError(self.rank, peer.rank, call) from error

    def _hear(self, peer: _Peer, call: str) -> None:
        """Wait for one word of a peer."""
        self.waiting_for = peer.rank, call
        try:
            data = peer.line.recv(_MESSAGE_LIMIT)
        except ConnectionResetError:  # it hung up with our words unread; its own come now
            data = peer.line.recv(_MESSAGE_LIMIT)
        self.waiting_for = None
        if not data:
            raise PeerLostError(self.rank, peer.rank, call)
        word = _Word.decode(data)
        if word.ready:
            peer.ready.append(word)
        else:
            self._reading[word.slot].discard(peer.rank)

    def _connect(self, job_id: str) -> None:
        """Call every lower rank and answer every higher one."""
        if self.rank_size == 1:
            return
        with socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET) as listener:
            listener.bind(_address(job_id, self.rank))
            listener.listen(self.rank_size)
            for lower in range(self.rank):
                self.waiting_for = lower, "meeting"
                self._meet(_call(_address(job_id, lower)))
            while len(self._peers) < self.rank_size - 1:
                missing = set(range(self.rank_size)) - {self.rank} - set(self._peers)
                self.waiting_for = min(missing), "meeting"
                self._meet(listener.accept()[0])
        self.waiting_for = None

    def _meet(self, line: socket.socket) -> None:
        """Exchange ranks and shared buffers with whoever is on the line, if it is this user."""
        credentials = line.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, _CREDENTIALS.size)
        if _CREDENTIALS.unpack(credentials)[1] != os.getuid():
            line.close()
            return
        socket.send_fds(line, [_HELLO.pack(self.rank)], [slot.fd for slot in self._own])
        data, fds, _, _ = socket.recv_fds(line, _HELLO.size, SLOTS)
        if len(data) != _HELLO.size:
            line.close()
            return
        (rank,) = _HELLO.unpack(data)
        if len(fds) != SLOTS:
            raise MeetingError(
                f"rank {self.rank} cannot open the shared memory of rank {rank}: too many open"
                " files; raise the limit (ulimit -n), or use fewer ranks"
            )
        self._peers[rank] = _Peer(rank, line, fds)


def _typed(memory: np.ndarray, like: np.ndarray) -> np.ndarray:
    array: np.ndarray = memory.view(like.dtype).reshape(like.shape)
    return array


def _address(job_id: str, rank: int) -> str:
    return f"\0launcher-{job_id}-{rank}"  # the abstract namespace: gone with its process


def _call(address: str) -> socket.socket:
    """Connect to a rank that may not listen yet."""
    pause_s = 0.001
    while True:
        line = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        try:
            line.connect(address)
            return line
        except ConnectionRefusedError:
            line.close()
        time.sleep(pause_s)
        pause_s = min(pause_s * 2, 0.05)
