"""Speak to the collector: the worker's end of the line. Every rank.

Predictions are sent while the rank computes the next one, but block while the collector is far
behind: they never pile up in memory. Everything else waits until the collector has it.
"""

from __future__ import annotations

import traceback
from collections.abc import Sequence

import numpy as np
import zmq

from workers.errors import PeerLostError
from workers.protocol import (
    OWNER_RANK,
    PHASES,
    QUEUED_MESSAGES,
    REFUSED,
    RELEASED,
    Done,
    Expected,
    Failed,
    Fetched,
    Message,
    Offered,
    PhaseEntered,
    Prediction,
    PredictionDigest,
    RankReport,
    Rows,
    Waiting,
)
from workers.slots import SLOTS, Slots
from workers.spec import WorkerSpec
from workers.wire_format import MAX_TEXT, encode, require_wire_dtypes

PATIENCE_MS = 30_000  # for an acknowledgement; a rank that gets none goes on without


class Link:
    """The line of one rank to the collector of its job."""

    def __init__(self, spec: WorkerSpec) -> None:
        if spec.collector is None:
            raise ValueError(f"rank {spec.rank} was told of no collector")
        self.rank, self._phase = spec.rank, PHASES[0]
        self._awaited = 0  # acknowledgements
        self._refused = False  # what the latest of them said
        self._offered = False  # memory, to the collector
        self._slots: Slots | None = None  # where it was taken
        self._unread = 0  # slots that the collector is not done with
        self._context = zmq.Context()
        self._socket = self._context.socket(zmq.DEALER)
        self._socket.setsockopt(zmq.LINGER, 0)  # what must arrive is waited for
        self._socket.setsockopt(zmq.SNDHWM, QUEUED_MESSAGES)
        self._socket.curve_serverkey = spec.collector.server_key.encode()
        self._socket.curve_publickey = spec.collector.public_key.encode()
        self._socket.curve_secretkey = spec.collector.secret_key.encode()
        self._socket.connect(spec.collector.endpoint)

    def phase(self, name: str) -> None:
        """Say that this rank begins a phase."""
        self._phase = name
        self._tell(PhaseEntered(self.rank, name))

    def predictions(
        self, batch: int, outputs: Sequence[np.ndarray], inputs: str, rows: Rows | None = None
    ) -> None:
        """Deliver one batch: whole from the rank that owns the outputs, else its checksums.

        Args:
            inputs: the checksum of what the batch was predicted from.
            rows: which rows of the whole outputs these are; None: all ranks have the same.
        """
        if self.rank == OWNER_RANK or rows is not None:
            self._hand_over(Prediction(self.rank, batch, tuple(outputs), inputs, rows))
        else:
            self._send(PredictionDigest.of(self.rank, batch, outputs, inputs))

    def expects(self, batches: int) -> None:
        """Say how many batches this rank is going to deliver."""
        self._tell(Expected(self.rank, batches))

    def waiting(self, peer: int, doing: str) -> None:
        """Say whom this rank waits for. Returns at once: the rank goes on waiting."""
        self._send(Waiting(self.rank, peer, doing))
        self._awaited += 1

    def fetched(self, nbytes: int, total: int) -> None:
        """Say how far this rank is with fetching its slices. Returns at once."""
        self._send(Fetched(self.rank, nbytes, total))
        self._awaited += 1

    def failed(self, error: BaseException, at_s: float) -> None:
        """Say why this rank cannot go on, and since when; its last word."""
        text = "".join(traceback.format_exception(error))
        try:
            message = str(error)
        except Exception as fault:  # the user's own __str__; the failure must be told all the same
            message = f"(its text cannot be had: {type(fault).__name__})"
        self._tell(
            Failed(
                rank=self.rank,
                phase=self._phase,
                kind=type(error).__name__,
                message=message[:MAX_TEXT],
                traceback=text[-MAX_TEXT:],
                exit_code=exit_code_of(error),
                echo_of=_lost_peer(error),
                at_s=at_s,
            )
        )

    def done(self, report: RankReport) -> None:
        """Say that every batch is delivered; the last word."""
        self._tell(Done(self.rank, report))

    def close(self) -> None:
        """Hang up. Allowed twice."""
        if self._slots is not None:
            self._slots.close()
        self._socket.close()
        self._context.term()

    def _hand_over(self, message: Prediction) -> None:
        """Send arrays through shared memory if the collector is on this host, else as frames."""
        require_wire_dtypes(message.outputs)
        if not self._offered:
            self._offered, self._slots = True, self._offer_slots()
        if self._slots is None:
            self._send(message)
            return
        while self._unread == SLOTS or (self._unread and not self._slots.fits(message.outputs)):
            self._hear()
        slot = self._slots.put(message.outputs)
        self._socket.send_multipart(encode(message, slot))
        self._unread += 1

    def _offer_slots(self) -> Slots | None:
        slots = Slots()
        self._refused = True  # unless the collector says otherwise
        self._tell(Offered(self.rank, slots.pid, slots.descriptor, slots.name))
        if self._refused:
            slots.close()
            return None
        return slots

    def _send(self, message: Message) -> None:
        self._socket.send_multipart(encode(message))

    def _tell(self, message: Message) -> None:
        """Send, and return when the collector has it."""
        self._send(message)
        self._awaited += 1
        while self._awaited and self._socket.poll(PATIENCE_MS):
            self._hear()

    def _hear(self) -> None:
        """Take in one answer of the collector. Blocks until there is one."""
        answer = self._socket.recv()
        if answer == RELEASED:
            self._unread -= 1
        else:
            self._awaited -= 1
            self._refused = answer == REFUSED


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
