"""Carry JSON objects between the head and its members, and notice who is gone.

ZeroMQ's own heartbeats tell a host that vanished from one that has nothing to say: they go on
in a thread of their own, whatever this process does.
"""

from __future__ import annotations

import json
import logging
import socket
from collections.abc import Mapping, Sequence
from typing import Any

import zmq
from zmq import SocketOption
from zmq.utils.monitor import recv_monitor_message

from launcher.curve import Keys, Listener

SILENCE_S = 5.0  # after which the other end is taken for gone
_HEARTBEATS: Mapping[SocketOption, int] = {
    SocketOption.HEARTBEAT_IVL: 1000,
    SocketOption.HEARTBEAT_TIMEOUT: int(SILENCE_S * 1000),
    SocketOption.HEARTBEAT_TTL: int(SILENCE_S * 1000),
}
_LARGEST = 64 << 20  # bytes of a message
_GONE: dict[str, Any] = {"say": "gone"}

_logger = logging.getLogger(__name__)

Said = dict[str, Any]


class HeadLine:
    """The end of the head: many members, each known by what ZeroMQ calls it."""

    def __init__(self, keys: Keys, port: int | None = None) -> None:
        """Listen on all networks; see ``Listener`` for what it raises."""
        ipv6 = {SocketOption.IPV6: int(socket.has_dualstack_ipv6())}
        options = {**_HEARTBEATS, **ipv6, SocketOption.MAXMSGSIZE: _LARGEST}
        self._listener = Listener(keys, "*", port, options)
        self._socket = self._listener.socket
        self._monitor = self._socket.get_monitor_socket(
            zmq.EVENT_ACCEPTED | zmq.EVENT_DISCONNECTED
        )
        self._open: set[int] = set()  # connections, by their file descriptors
        self._members: dict[int, bytes] = {}  # who is there, once they have said something
        self.port = self._listener.port
        self.sources = (self._socket, self._monitor)

    @property
    def connected(self) -> set[bytes]:
        """Who is there, as far as ``receive`` has noticed."""
        return set(self._members.values())

    def receive(self) -> list[tuple[bytes, Said]]:
        """Return what members said, each with who; ``{"say": "gone"}`` for who is no more."""
        said: list[tuple[bytes, Said]] = []
        gone: list[bytes] = []
        while self._socket.poll(0):
            member, frame = self._socket.recv_multipart(copy=False)[:2]
            # The connection was accepted before its message came: its number is not an older one's.
            gone += self._departed()
            connection = int(frame.get(zmq.SRCFD))
            if connection in self._open:
                self._members[connection] = member.bytes
            else:
                gone.append(member.bytes)
            if (words := _decode(frame.bytes)) is not None:
                said.append((member.bytes, words))
        gone += self._departed()
        return said + [(member, _GONE) for member in dict.fromkeys(gone)]

    def _departed(self) -> list[bytes]:
        """Return whose connections have been closed."""
        departed = []
        while self._monitor.poll(0):
            event = recv_monitor_message(self._monitor)
            connection = int(event["value"])
            if event["event"] == zmq.EVENT_ACCEPTED:
                self._open.add(connection)
                continue
            self._open.discard(connection)
            if connection in self._members:
                departed.append(self._members.pop(connection))
        return departed

    def send(self, member: bytes, **words: Any) -> None:
        """Tell a member something; one that is gone does not mind."""
        self._socket.send_multipart([member, json.dumps(words).encode()])

    def close(self) -> None:
        """Hang up as soon as everything is sent."""
        self._socket.disable_monitor()
        self._monitor.close()
        self._socket.setsockopt(zmq.LINGER, 1000)
        self._listener.close()


class MemberLine:
    """The end of a member."""

    def __init__(self, keys: Keys, address: str, port: int) -> None:
        self._context = zmq.Context()
        self._socket = self._context.socket(zmq.DEALER)
        self._socket.curve_serverkey = keys.server_public
        self._socket.curve_publickey = keys.client_public
        self._socket.curve_secretkey = keys.client_secret
        for option, value in {**_HEARTBEATS, SocketOption.LINGER: 1000}.items():
            self._socket.setsockopt(option, value)
        self._socket.setsockopt(SocketOption.IPV6, int(":" in address))
        self._monitor = self._socket.get_monitor_socket(
            zmq.EVENT_DISCONNECTED | zmq.EVENT_HANDSHAKE_SUCCEEDED
        )
        self._socket.connect(endpoint(address, port))
        self.known = False  # whether the head has let us in
        self.sources: Sequence[zmq.Socket[bytes]] = (self._socket, self._monitor)

    def receive(self) -> list[Said]:
        """Return what the head said; ``{"say": "gone"}`` when it is no more, or never was."""
        said = []
        while self._socket.poll(0):
            if (words := _decode(self._socket.recv())) is not None:
                said.append(words)
        while self._monitor.poll(0):
            if recv_monitor_message(self._monitor)["event"] == zmq.EVENT_HANDSHAKE_SUCCEEDED:
                self.known = True
            else:
                said.append(_GONE)
        return said

    def send(self, **words: Any) -> None:
        self._socket.send(json.dumps(words).encode())

    def close(self) -> None:
        """Hang up as soon as everything is sent."""
        self._socket.disable_monitor()
        self._monitor.close()
        self._socket.close()
        self._context.term()


def endpoint(address: str, port: int | str) -> str:
    """Return a host's address and port as ZeroMQ wants them."""
    return f"tcp://[{address}]:{port}" if ":" in address else f"tcp://{address}:{port}"


def _decode(data: bytes) -> Said | None:
    try:
        words = json.loads(data)
    except ValueError:
        words = None
    if not isinstance(words, dict):
        _logger.warning("a message of %d bytes is no object", len(data))
        return None
    return words
