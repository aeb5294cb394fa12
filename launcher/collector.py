"""Receive what the ranks of one job say, and nothing from anybody else. Parent only.

CURVE encrypts the line, and only whoever holds the key pair that the ranks of this job were given
is let in. What is not a message is refused and logged; it never ends the run by itself.
"""

from __future__ import annotations

import logging
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import replace
from types import TracebackType

import zmq
from zmq import SocketOption

from launcher.curve import Keys, Listener
from launcher.site import Where
from workers.protocol import (
    ACKNOWLEDGED,
    QUEUED_MESSAGES,
    REFUSED,
    RELEASED,
    Failed,
    Message,
    Offered,
    Prediction,
    PredictionDigest,
)
from workers.slots import SlotReader
from workers.spec import CollectorAddress
from workers.wire_format import MAX_FRAME_BYTES, ProtocolError, decode

_AT_ONCE = 64  # messages in one turn, so that signals and deadlines get theirs

_logger = logging.getLogger(__name__)


class Collector:
    """The end of the line where the ranks report. A context manager."""

    def __init__(self, ranks: Iterable[int], where: Where = Where()) -> None:
        self._ranks = frozenset(ranks)
        self._slots: dict[int, SlotReader] = {}  # of ranks that share memory
        self._on_this_host = where.listen == Where.listen  # all ranks are
        keys = Keys.random()
        limits = {SocketOption.MAXMSGSIZE: MAX_FRAME_BYTES, SocketOption.RCVHWM: QUEUED_MESSAGES}
        self._listener = Listener(keys, where.listen, where.port, limits)
        self.socket = self._listener.socket
        self.address = CollectorAddress(
            endpoint=f"tcp://{where.reach}:{self._listener.port}",
            server_key=keys.server_public.decode(),
            public_key=keys.client_public.decode(),
            secret_key=keys.client_secret.decode(),
        )

    def receive(self) -> Iterator[Message]:
        """Yield what has arrived, and acknowledge it; never blocks.

        Arrays are there until the next message is asked for. The caller must act on last words
        before it looks at exits: a rank whose last word was acknowledged exits right away.
        """
        for _ in range(_AT_ONCE):
            try:
                sender, *frames = self.socket.recv_multipart(zmq.NOBLOCK, copy=False)
            except zmq.Again:
                break
            message = self._decode([frame.buffer for frame in frames])
            if isinstance(message, Offered):
                self.socket.send_multipart([sender.bytes, self._take_offer(message)])
                continue
            if message is None:
                continue
            if isinstance(message, Failed) and not self._on_this_host:
                message = replace(message, at_s=None)  # it has another clock
            if not isinstance(message, (Prediction, PredictionDigest)):
                self.socket.send_multipart([sender.bytes, ACKNOWLEDGED])
            yield message
            if isinstance(message, Prediction) and message.rank in self._slots:
                self.socket.send_multipart([sender.bytes, RELEASED])

    def _take_offer(self, offer: Offered) -> bytes:
        """Share memory with a rank of this host; one of another host sends its arrays."""
        if offer.rank in self._slots:
            return REFUSED
        try:
            self._slots[offer.rank] = SlotReader(offer.pid, offer.descriptor, offer.name)
        except OSError:
            return REFUSED
        return ACKNOWLEDGED

    def _decode(self, frames: Sequence[memoryview]) -> Message | None:
        try:
            message = decode(frames, self._slots)
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
        self._listener.close()
        for slots in self._slots.values():
            slots.close()
