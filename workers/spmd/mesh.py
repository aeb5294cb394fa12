"""Swap data between the ranks of one host, through shared memory.

Nobody busy-waits. A rank that dies closes its sockets, so whoever waits for it knows at once.
Ranks that wait for each other in different calls learn it from the board.
"""

from __future__ import annotations

import select
import socket
from collections.abc import Mapping

import numpy as np

from workers.errors import PeerLostError, WorkerError
from workers.spmd.board import THE_END, Board, Entry, named, parse
from workers.spmd.errors import MismatchError
from workers.spmd.meeting import Meeting, require_fds
from workers.spmd.shared_group import FDS, ROW_BYTES, SharedGroup

_LOOK_MS = 200  # how often a rank that waits looks at the board
_MESSAGE_BYTES = 1 << 16
_HANG_UP = select.POLLRDHUP | select.POLLHUP | select.POLLERR

_Parts = Mapping[int, tuple[slice, ...]]  # rank -> which part of an array


class Mesh:
    """One rank's ``Transport`` to the other ranks of its host."""

    piece_bytes = ROW_BYTES

    def __init__(self, rank: int, rank_size: int, job_id: str) -> None:
        """Meet the other ranks. Blocks until all of them have come, however long."""
        self.rank, self.rank_size = rank, rank_size
        own_board = Board.create(rank_size) if rank == 0 else -1
        meeting = Meeting(rank, rank_size, job_id, own_board)
        self._lines, self._board = meeting.lines, Board(rank, rank_size, meeting.board)
        self._groups: dict[tuple[int, ...], SharedGroup] = {}
        self._pollers: dict[tuple[tuple[int, ...], int], select.poll] = {}
        self._blocked: Entry | None = None  # the call in which this rank waits

    @property
    def waiting_for(self) -> tuple[int, str] | None:
        """The first rank of the group that is not here yet, and the call."""
        blocked = self._blocked
        missing = self._missing(blocked) if blocked else []
        return (missing[0], blocked.call) if blocked and missing else None

    def swap(
        self, call: str, group: tuple[int, ...], array: np.ndarray, gives: _Parts, takes: _Parts
    ) -> list[np.ndarray]:
        """See ``Transport.swap``."""
        shared = self._groups.get(group) or self._share(group, call)
        rows = shared.put(array, call)
        entry = Entry(shared.calls, group, call)
        self._board.post(entry)
        if not shared.arrive():
            self._wait(entry, shared.gate)
            shared.leave()
        shared.require_same_call()
        return [rows[shared.place[member]][part] for member, part in takes.items()]

    def close(self) -> None:
        """Part from the others: whoever still waits for this rank is told that it is done."""
        self._board.post(Entry(0, (), THE_END))
        for line in self._lines.values():
            line.close()
        for shared in self._groups.values():
            shared.close()
        self._lines.clear()
        self._groups.clear()
        self._pollers.clear()

    def _share(self, group: tuple[int, ...], call: str) -> SharedGroup:
        """Share memory with a group before its first call; the first of its ranks provides it."""
        first, *others = group
        entry = Entry(1, group, call)
        self._board.post(entry)
        if self.rank == first:
            fds = SharedGroup.create(len(group))
            for member in others:
                try:
                    socket.send_fds(self._lines[member], [named(group)], fds)
                except (BrokenPipeError, ConnectionResetError) as error:
                    raise self._lost(member, call) from error
        else:
            line = self._lines[first]
            self._wait(entry, line.fileno())
            name, fds, _, _ = socket.recv_fds(line, _MESSAGE_BYTES, FDS)
            if not name:
                raise self._lost(first, call)
            if parse(name) != group:
                raise MismatchError(self.rank, call, first, self._board.read(first).call)
            require_fds(fds, FDS, self.rank, first)
        shared = self._groups[group] = SharedGroup(group, self.rank, fds)
        return shared

    def _wait(self, entry: Entry, wake: int) -> None:
        """Sleep until a descriptor is readable.

        Raises:
            PeerLostError: a rank of the group is gone.
            MismatchError: a rank of the group waits for this one in another call, or is done.
        """
        poller = self._poller(entry.group, wake)
        seen: dict[int, Entry] = {}
        self._blocked = entry
        while True:
            events = poller.poll(_LOOK_MS)
            if (wake, select.POLLIN) in events:
                break
            ended = {descriptor for descriptor, _ in events}
            for member in entry.group:
                if member != self.rank and self._lines[member].fileno() in ended:
                    raise self._lost(member, entry.call)
            self._look(entry, seen)
        self._blocked = None

    def _poller(self, group: tuple[int, ...], wake: int) -> select.poll:
        """Return what wakes this rank: a descriptor, or the end of another rank of the group."""
        if (group, wake) not in self._pollers:
            poller = self._pollers[group, wake] = select.poll()
            for member in group:
                if member != self.rank:
                    poller.register(self._lines[member], _HANG_UP)
            poller.register(wake, select.POLLIN)
        return self._pollers[group, wake]

    def _look(self, entry: Entry, seen: dict[int, Entry]) -> None:
        """Find a rank that waits for this one in a call that this one has not begun.

        What is read twice is no row that was being written.
        """
        for member in self._missing(entry):
            theirs = self._board.read(member)
            shared = self._groups.get(theirs.group)
            begun = shared.calls if shared else 0
            if self.rank in theirs.group and theirs.number > begun:
                if seen.get(member) == theirs:
                    raise MismatchError(self.rank, entry.call, member, theirs.call)
                seen[member] = theirs

    def _missing(self, entry: Entry) -> list[int]:
        """Return the ranks of a group that have not begun a call in which this one waits."""
        return [member for member in entry.group if self._board.read(member)[:2] != entry[:2]]

    def _lost(self, peer: int, call: str) -> WorkerError:
        """Say why a rank has hung up."""
        last = self._board.read(peer).call
        if last == THE_END:
            return MismatchError(self.rank, call, peer, last)
        return PeerLostError(self.rank, peer, call)
