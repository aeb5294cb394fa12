"""Speak to the collector: the worker's end of the line. Every rank.

Sending blocks while the collector is behind, so that a rank never piles up predictions in
memory. There is no time limit here: the launcher has one, and a rank dies with it.
"""

from __future__ import annotations

import traceback
from collections.abc import Sequence

import numpy as np
import zmq

from workers.errors import PeerLostError
from workers.protocol import (
    MAX_TEXT,
    OWNER_RANK,
    PHASES,
    Done,
    Failed,
    Message,
    PhaseEntered,
    Prediction,
    PredictionDigest,
    RankReport,
    encode,
)
from workers.spec import WorkerSpec

QUEUED_MESSAGES = 8  # batches that a rank may be ahead of the collector
LAST_WORD_MS = 30_000  # how long to wait for the collector to acknowledge it


class Link:
    """The line of one rank to the collector of its job."""

    def __init__(self, spec: WorkerSpec) -> None:
        if spec.collector is None:
            raise ValueError(f"rank {spec.rank} was told of no collector")
        self.rank, self._phase = spec.rank, PHASES[0]
        self._context = zmq.Context()
        self._socket = self._context.socket(zmq.DEALER)
        self._socket.setsockopt(zmq.LINGER, 0)  # only the last word must arrive; it is waited for
        self._socket.setsockopt(zmq.SNDHWM, QUEUED_MESSAGES)
        self._socket.curve_serverkey = spec.collector.server_key.encode()
        self._socket.curve_publickey = spec.collector.public_key.encode()
        self._socket.curve_secretkey = spec.collector.secret_key.encode()
        self._socket.connect(spec.collector.endpoint)

    def phase(self, name: str) -> None:
        """Say that this rank begins a phase."""
        self._phase = name
        self._send(PhaseEntered(self.rank, name))

    def predictions(self, batch: int, outputs: Sequence[np.ndarray]) -> None:
        """Deliver one batch: whole from the rank that owns the outputs, else its checksums."""
        if self.rank == OWNER_RANK:
            self._send(Prediction(self.rank, batch, tuple(outputs)))
        else:
            self._send(PredictionDigest.of(self.rank, batch, outputs))

    def failed(self, error: BaseException) -> None:
        """Say why this rank cannot go on; its last word."""
        text = "".join(traceback.format_exception(error))
        self._send(
            Failed(
                rank=self.rank,
                phase=self._phase,
                kind=type(error).__name__,
                message=str(error)[:MAX_TEXT],
                traceback=text[-MAX_TEXT:],
                exit_code=exit_code_of(error),
                echo_of=_lost_peer(error),
            )
        )
        self._await_acknowledgement()

    def done(self, report: RankReport) -> None:
        """Say that every batch is delivered; the last word."""
        self._send(Done(self.rank, report))
        self._await_acknowledgement()

    def close(self) -> None:
        """Hang up. Allowed twice."""
        self._socket.close()
        self._context.term()

    def _send(self, message: Message) -> None:
        self._socket.send_multipart(encode(message))

    def _await_acknowledgement(self) -> None:
        if self._socket.poll(LAST_WORD_MS):
            self._socket.recv()


def exit_code_of(error: BaseException) -> int:
    """Return what a process that ends in ``error`` exits with; never 0."""
    code = getattr(error, "exit_code", 1)
    return code if type(code) is int and 0 < code < 256 else 1


def _lost_peer(error: BaseException) -> int | None:
    """Return the peer whose loss ``error`` echoes, also when the user's code wrapped it."""
    seen: set[int] = set()
    current: BaseException | None = error
    while current is not None and id(current) not in seen:
        if isinstance(current, PeerLostError):
            return current.peer
        seen.add(id(current))
        current = current.__cause__ or current.__context__
    return None
