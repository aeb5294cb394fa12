"""Carry JSON objects, one a line, between the launcher and its fork server. Both processes.

Neither end ever waits for the other one, which may be waiting itself: what the kernel does not
take at once is kept, and sent as soon as there is room.
"""

from __future__ import annotations

import json
import select
import socket
from typing import Any


class Channel:
    """One end of a socket pair. Whoever sees ``closed`` knows that the other process is gone."""

    def __init__(self, end: socket.socket) -> None:
        self._socket = end
        self._socket.setblocking(False)
        self._received = b""  # the beginning of a line
        self._unsent = bytearray()
        self._news = select.epoll()
        self._news.register(end, select.EPOLLIN)
        self.closed = False

    def fileno(self) -> int:
        """Return a file descriptor that is readable when ``receive`` has something to do."""
        return self._news.fileno()

    def send(self, **fields: Any) -> None:
        """Send one object; a peer that is gone is not an error here, but ends ``receive``."""
        self._unsent += json.dumps(fields).encode() + b"\n"
        self._send_what_fits()

    def receive(self) -> list[dict[str, Any]]:
        """Return the objects that have arrived, and send on what waits for room."""
        if self._unsent:
            self._send_what_fits()
        try:
            data = self._socket.recv(1 << 20)
        except BlockingIOError:
            return []
        except ConnectionResetError:
            data = b""
        if not data:
            self.closed = True
        *lines, self._received = (self._received + data).split(b"\n")
        return [json.loads(line) for line in lines]

    def close(self) -> None:
        self._news.close()
        self._socket.close()
        self.closed = True

    def _send_what_fits(self) -> None:
        try:
            while self._unsent:
                del self._unsent[: self._socket.send(self._unsent)]
        except BlockingIOError:
            pass  # the kernel is full; there is news when it is not
        except (BrokenPipeError, ConnectionResetError):
            self._unsent.clear()
            self.closed = True
        wanted = select.EPOLLIN | (select.EPOLLOUT if self._unsent else 0)
        self._news.modify(self._socket, wanted)
