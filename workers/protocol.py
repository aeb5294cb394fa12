"""Say what a rank may tell the collector.

The collector answers everything but predictions with ``ACKNOWLEDGED``, and the rank waits for
that: when it crashes the launcher knows the phase, and an exit that comes before a last word
(``Failed`` or ``Done``) is the exit of a rank that said none.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, TypeAlias

import numpy as np
import xxhash

PHASES = ("started", "context", "layout", "load", "compile", "predict", "done")
OWNER_RANK = 0  # sends whole predictions; every other rank sends digests of the same arrays
ACKNOWLEDGED = b"acknowledged"  # the answer to a message that has no array in it
REFUSED = b"refused"  # the answer to an offer that cannot be taken
RELEASED = b"released"  # when arrays in a slot were worked on
QUEUED_MESSAGES = 2  # of each rank, at either end of the line; then the rank has to wait


@dataclass(frozen=True)
class PhaseEntered:
    """A rank begins a phase of its life."""

    rank: int
    phase: str  # one of PHASES


@dataclass(frozen=True)
class Fetched:
    """A rank that loads remote files is so far with them."""

    rank: int
    nbytes: int  # that are here
    total: int


@dataclass(frozen=True)
class Rows:
    """Which rows of the whole outputs a batch is, where the ranks share the data."""

    start: int
    step: int = 1


@dataclass(frozen=True)
class Prediction:
    """The outputs of one batch, from the rank that owns them."""

    rank: int
    batch: int  # 0, 1, 2, ... without a gap
    outputs: tuple[np.ndarray, ...]
    inputs: str = ""  # checksum of what the rank predicted from
    rows: Rows | None = None  # None: every rank predicts all batches


@dataclass(frozen=True)
class PredictionDigest:
    """What another rank computed for the same batch, as checksums."""

    rank: int
    batch: int
    shapes: tuple[tuple[int, ...], ...]
    dtypes: tuple[str, ...]
    digests: tuple[str, ...]  # checksums of the C-contiguous bytes, hexadecimal
    inputs: str = ""  # checksum of what the rank predicted from

    @classmethod
    def of(
        cls, rank: int, batch: int, outputs: Sequence[np.ndarray], inputs: str = ""
    ) -> PredictionDigest:
        """Return what a rank that computed ``outputs`` would say of them."""
        return cls(
            rank,
            batch,
            tuple(output.shape for output in outputs),
            tuple(output.dtype.name for output in outputs),
            tuple(checksum(output) for output in outputs),
            inputs,
        )


@dataclass(frozen=True)
class Expected:
    """How many batches a rank is going to deliver, as its data say."""

    rank: int
    batches: int


@dataclass(frozen=True)
class Offered:
    """A rank would rather hand over its arrays in memory, if that is on the collector's host."""

    rank: int
    pid: int
    descriptor: int
    name: str


@dataclass(frozen=True)
class Waiting:
    """A rank that was asked what holds it up (SIGUSR1) is waiting for another one."""

    rank: int
    peer: int
    doing: str  # the collective call that the peer has not come to


@dataclass(frozen=True)
class Failed:
    """A rank cannot go on: its last word."""

    rank: int
    phase: str
    kind: str  # class name of the exception
    message: str
    traceback: str
    exit_code: int
    echo_of: int | None = None  # the peer whose loss this failure merely echoes
    at_s: float | None = None  # when, by time.monotonic() of the rank's host; None: nobody knows


@dataclass(frozen=True)
class RankReport:
    """What a rank that succeeded used."""

    phase_seconds: Mapping[str, float]
    bytes_read: int  # of checkpoint files
    bytes_held: int  # of the slices of this rank
    peak_memory_bytes: int
    batches: int
    device_memory_bytes: int | None = None  # the most that tensors held, where there is a device
    initial: tuple[str, ...] = ()  # parameters that no file has
    metrics: Mapping[str, Any] | None = None  # JSON values, from a rank that evaluated by itself
    samples: int | None = None  # of the whole data, from a rank that has a share of them
    seen: str = ""  # checksum of all the data that such a rank has seen
    batch_rows: int | None = None  # of a batch of the whole data, where shards have their own


@dataclass(frozen=True)
class Done:
    """A rank has delivered every batch: its last word."""

    rank: int
    report: RankReport


Message: TypeAlias = (
    "PhaseEntered | Fetched | Expected | Offered | Prediction | PredictionDigest | Waiting"
    " | Failed | Done"
)


def checksum(*arrays: np.ndarray | bytes) -> str:
    """Return the XXH3-128 of the bytes of arrays, in C order, in hexadecimal.

    It finds what differs by accident; nobody is meant to be kept from making it agree.
    """
    total = xxhash.xxh3_128()
    for array in arrays:
        total.update(array if isinstance(array, bytes) else bytes_of(array))
    return total.hexdigest()


def bytes_of(array: np.ndarray) -> memoryview:
    """Return the bytes of an array in C order and this machine's byte order."""
    native = np.ascontiguousarray(array, dtype=array.dtype.newbyteorder("="))
    return native.reshape(-1).view(np.uint8).data
