"""Let the ranks of one host find each other: a Unix socket for each pair, and one board for all.

Sockets have names in the abstract namespace, which are gone with their processes.
"""

from __future__ import annotations

import os
import socket
import struct
import time

from workers.spmd.errors import MeetingError

_CREDENTIALS = struct.Struct("3i")  # pid, uid, gid: SO_PEERCRED
_HELLO = struct.Struct("I")  # rank


class Meeting:
    """What a rank has after it has met all others."""

    def __init__(self, rank: int, rank_size: int, job_id: str, board: int) -> None:
        """Connect to every other rank. Blocks until all of them have come, however long.

        Args:
            board: the descriptor of rank 0's board; the other ranks get theirs from it.
        """
        self.lines: dict[int, socket.socket] = {}
        self.board = board
        self._rank = rank
        try:
            self._connect(rank_size, job_id)
        except BaseException:
            for line in self.lines.values():
                line.close()
            raise

    def _connect(self, rank_size: int, job_id: str) -> None:
        """Call every lower rank and answer every higher one."""
        with socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET) as listener:
            listener.bind(_address(job_id, self._rank))
            listener.listen(rank_size)
            for lower in range(self._rank):
                self._meet(_call(_address(job_id, lower)))
            while len(self.lines) < rank_size - 1:
                self._meet(listener.accept()[0])

    def _meet(self, line: socket.socket) -> None:
        """Exchange ranks with whoever is on the line, if it is this user; rank 0 adds the board."""
        credentials = line.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, _CREDENTIALS.size)
        if _CREDENTIALS.unpack(credentials)[1] != os.getuid():
            line.close()
            return
        socket.send_fds(line, [_HELLO.pack(self._rank)], [self.board] if self._rank == 0 else [])
        data, fds, _, _ = socket.recv_fds(line, _HELLO.size, 1)
        if len(data) != _HELLO.size:
            line.close()
            return
        (peer,) = _HELLO.unpack(data)
        if peer == 0:
            self.board = require_fds(fds, 1, self._rank, peer)[0]
        self.lines[peer] = line


def require_fds(fds: list[int], count: int, rank: int, peer: int) -> list[int]:
    """Return the descriptors that a peer has sent; the kernel drops what a process cannot take."""
    if len(fds) != count:
        raise MeetingError(
            f"rank {rank} cannot open the shared memory of rank {peer}: too many open files;"
            " raise the limit (ulimit -n), or use fewer ranks"
        )
    return fds


def _address(job_id: str, rank: int) -> str:
    return f"\0launcher-{job_id}-{rank}"


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
