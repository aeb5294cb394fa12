"""Carry JSON objects, one a line, between the launcher and its fork server. Both processes."""

from __future__ import annotations

import json
import socket
from typing import Any


class Channel:
    """One end of a socket pair. Whoever sees ``closed`` knows that the other process is gone."""

    def __init__(self, end: socket.socket) -> None:
        self._socket = end
        self._received = b""  # the beginning of a line
        self.closed = False

    def fileno(self) -> int:
        return self._socket.fileno()

    def send(self, **fields: Any) -> None:
        """Send one object; a peer that is gone is not an error here, but ends ``receive``."""
        try:
            self._socket.sendall(json.dumps(fields).encode() + b"\n")
        except (BrokenPipeError, ConnectionResetError):
            self.closed = True

    def receive(self) -> list[dict[str, Any]]:
        """Return the objects that have arrived; blocks until there is something to read."""
        try:
            data = self._socket.recv(1 << 20)
        except ConnectionResetError:
            data = b""
        if not data:
            self.closed = True
        *lines, self._received = (self._received + data).split(b"\n")
        return [json.loads(line) for line in lines]

    def close(self) -> None:
        self._socket.close()
        self.closed = True
