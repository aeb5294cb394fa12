"""Receive what the ranks of one job say, and nothing from anybody else. Parent only.

The socket listens on this host alone, on a port that is free. CURVE encrypts the line, and
only whoever holds the key pair that the ranks of this job were given is let in. What is not a
message is refused and logged; it never ends the run by itself.
"""

from __future__ import annotations

import logging
from collections.abc import Iterable, Sequence
from types import TracebackType

import zmq
from zmq.auth.thread import ThreadAuthenticator

from workers.protocol import (
    ACKNOWLEDGED,
    MAX_FRAME_BYTES,
    QUEUED_MESSAGES,
    Message,
    Prediction,
    PredictionDigest,
    ProtocolError,
    decode,
)
from workers.spec import CollectorAddress

_AT_ONCE = 64  # messages in one turn, so that signals and deadlines get theirs

_logger = logging.getLogger(__name__)


class Collector:
    """The end of the line where the ranks report. A context manager."""

    def __init__(self, ranks: Iterable[int]) -> None:
        self._ranks = frozenset(ranks)
        server_public, server_secret = zmq.curve_keypair()
        public_key, secret_key = zmq.curve_keypair()
        self._context = zmq.Context()
        self._authenticator = ThreadAuthenticator(self._context)
        self._authenticator.start()
        self._authenticator.configure_curve_callback("*", _OneKey(public_key))
        self.socket = self._context.socket(zmq.ROUTER)
        self.socket.curve_server = True
        self.socket.curve_publickey = server_public
        self.socket.curve_secretkey = server_secret
        self.socket.setsockopt(zmq.MAXMSGSIZE, MAX_FRAME_BYTES)
        self.socket.setsockopt(zmq.RCVHWM, QUEUED_MESSAGES)
        self.socket.setsockopt(zmq.LINGER, 0)
        self.socket.bind("tcp://127.0.0.1:*")
        self.address = CollectorAddress(
            endpoint=self.socket.getsockopt_string(zmq.LAST_ENDPOINT),
            server_key=server_public.decode(),
            public_key=public_key.decode(),
            secret_key=secret_key.decode(),
        )

    def receive(self) -> list[Message]:
        """Return what has arrived, and acknowledge it; never blocks.

        The caller must act on last words before it looks at exits: a rank whose last word was
        acknowledged exits right away.
        """
        messages = []
        for _ in range(_AT_ONCE):
            try:
                sender, *frames = self.socket.recv_multipart(zmq.NOBLOCK, copy=False)
            except zmq.Again:
                break
            message = self._decode([frame.buffer for frame in frames])
            if message is None:
                continue
            messages.append(message)
            if not isinstance(message, (Prediction, PredictionDigest)):
                self.socket.send_multipart([sender.bytes, ACKNOWLEDGED])
        return messages

    def _decode(self, frames: Sequence[memoryview]) -> Message | None:
        try:
            message = decode(frames)
            if message.rank not in self._ranks:
                raise ProtocolError(f"there is no rank {message.rank} in this job")
        except ProtocolError as error:
            _logger.warning("the collector refused a message: %s", error)
            return None
        return message

    def __enter__(self) -> Collector:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.socket.close()
        self._authenticator.stop()
        self._context.term()


class _OneKey:
    """Tells the authenticator which client keys to let in: the one of this job."""

    def __init__(self, public_key: bytes) -> None:
        self._public_key = public_key

    def callback(self, domain: str, key: bytes) -> bool:
        return key == self._public_key
