"""Say what a rank may tell the collector, and how that looks on the wire.

A message is one JSON header frame; a ``Prediction`` adds the raw bytes of its arrays. Nothing
is ever executed to read one: whatever does not fit is a ``ProtocolError``. The collector
answers everything but predictions with ``ACKNOWLEDGED``, and the rank waits for that: when
it crashes the launcher knows the phase, and an exit that comes before a last word (``Failed``
or ``Done``) is the exit of a rank that said none.
"""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from itertools import islice
from typing import Any, TypeAlias

import numpy as np
import xxhash

from workers.slots import SlotReader

PHASES = ("started", "context", "layout", "load", "compile", "predict", "done")
OWNER_RANK = 0  # sends whole predictions; every other rank sends digests of the same arrays
ACKNOWLEDGED = b"acknowledged"  # the answer to a message that has no array in it
REFUSED = b"refused"  # the answer to an offer that cannot be taken
RELEASED = b"released"  # when arrays in a slot were worked on
QUEUED_MESSAGES = 2  # of each rank, at either end of the line; then the rank has to wait
CHUNK_BYTES = 16 << 20  # arrays travel in frames of at most this size
MAX_FRAME_BYTES = CHUNK_BYTES + (1 << 16)  # what the collector accepts; CURVE adds some bytes
MAX_TEXT = 1 << 18  # characters of a message or traceback

# The dtypes that a .npy file can hold and any NumPy can read.
WIRE_DTYPES = frozenset(
    "bool int8 int16 int32 int64 uint8 uint16 uint32 uint64"
    " float16 float32 float64 complex64 complex128".split()
)

Frame: TypeAlias = "bytes | memoryview"


class ProtocolError(Exception):
    """A message cannot be sent, or what arrived is none."""


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
        total.update(array if isinstance(array, bytes) else _bytes_of(array))
    return total.hexdigest()


def encode(message: Message, slot: int | None = None) -> list[Frame]:
    """Return the frames of a message; arrays are not copied unless they are not contiguous.

    Args:
        slot: where its arrays lie in the memory that the sender shares; they get no frames.

    Raises:
        ProtocolError: an output is of a dtype that no .npy file can hold.
    """
    if not isinstance(message, Prediction):
        return [_header(type(message).__name__, asdict(message))]
    require_wire_dtypes(message.outputs)
    outputs = [{"shape": o.shape, "dtype": o.dtype.name} for o in message.outputs]
    fields = {"rank": message.rank, "batch": message.batch, "inputs": message.inputs}
    rows = None if message.rows is None else asdict(message.rows)
    header = _header("Prediction", fields | {"outputs": outputs, "rows": rows, "slot": slot})
    if slot is not None:
        return [header]
    return [header, *(chunk for output in message.outputs for chunk in _chunks(output))]


def require_wire_dtypes(outputs: Sequence[np.ndarray]) -> None:
    """Check that outputs can be sent.

    Raises:
        ProtocolError: one is of a dtype that no .npy file can hold.
    """
    for output in outputs:
        if output.dtype.name not in WIRE_DTYPES:
            raise ProtocolError(
                f"the network returned an output of dtype {output.dtype.name}, which a .npy"
                " file cannot hold; let it end in a cast to float32"
            )


def decode(frames: Sequence[Frame], slots: Mapping[int, SlotReader] = {}) -> Message:
    """Return the message that ``frames`` hold.

    Args:
        slots: of each rank that shares memory.

    Raises:
        ProtocolError: they hold none, or not exactly one.
    """
    try:
        message_type, fields = _read_header(frames)
        if message_type == "Prediction":
            return _read_prediction(fields, frames[1:], slots)
        if len(frames) > 1:
            raise ProtocolError(f"a {message_type} has one frame, not {len(frames)}")
        return _READERS[message_type](fields)
    except (KeyError, TypeError, ValueError, RecursionError) as error:
        raise ProtocolError(f"not a message: {type(error).__name__}: {error}") from error


def _header(message_type: str, fields: Mapping[str, Any]) -> bytes:
    return json.dumps({"type": message_type, **fields}).encode()


def _bytes_of(array: np.ndarray) -> memoryview:
    """Return the bytes of an array in C order and this machine's byte order."""
    native = np.ascontiguousarray(array, dtype=array.dtype.newbyteorder("="))
    return native.reshape(-1).view(np.uint8).data


def _chunks(array: np.ndarray) -> Iterator[memoryview]:
    data = _bytes_of(array)
    for start in range(0, len(data), CHUNK_BYTES):
        yield data[start : start + CHUNK_BYTES]


def _read_header(frames: Sequence[Frame]) -> tuple[str, dict[str, Any]]:
    if not frames:
        raise ProtocolError("not a message: no frame")
    fields = json.loads(bytes(frames[0]))
    if not isinstance(fields, dict):
        raise ProtocolError("not a message: the header is no object")
    return _text(fields.pop("type")), fields


def _read_prediction(
    fields: Mapping[str, Any], frames: Sequence[Frame], slots: Mapping[int, SlotReader]
) -> Prediction:
    rank, slot = _count(fields["rank"]), fields["slot"]
    described = [
        (_shape(output["shape"]), _wire_dtype(output["dtype"])) for output in fields["outputs"]
    ]
    if slot is None:
        outputs = _read_outputs(described, frames)
    elif frames:
        raise ProtocolError("arrays in a slot have no frames")
    else:
        outputs = slots[rank].arrays(_count(slot), described)
    return Prediction(
        rank, _count(fields["batch"]), outputs, _text(fields["inputs"]), _rows(fields["rows"])
    )


def _read_outputs(
    described: Sequence[tuple[tuple[int, ...], np.dtype]], frames: Sequence[Frame]
) -> tuple[np.ndarray, ...]:
    chunks = iter(frames)
    outputs = []
    for shape, dtype in described:
        size = math.prod(shape) * dtype.itemsize
        parts = list(islice(chunks, -(-size // CHUNK_BYTES)))
        data = parts[0] if len(parts) == 1 else b"".join(parts)
        if len(data) != size:
            raise ProtocolError(f"an output of {size} bytes came with {len(data)}")
        outputs.append(np.frombuffer(data, dtype).reshape(shape))
    if next(chunks, None) is not None:
        raise ProtocolError("more frames than the outputs need")
    return tuple(outputs)


def _read_phase(fields: Mapping[str, Any]) -> PhaseEntered:
    return PhaseEntered(_count(fields["rank"]), _phase(fields["phase"]))


def _read_fetched(fields: Mapping[str, Any]) -> Fetched:
    return Fetched(*(_count(fields[name]) for name in ("rank", "nbytes", "total")))


def _read_expected(fields: Mapping[str, Any]) -> Expected:
    return Expected(_count(fields["rank"]), _count(fields["batches"]))


def _read_offered(fields: Mapping[str, Any]) -> Offered:
    rank, pid, descriptor = (_count(fields[name]) for name in ("rank", "pid", "descriptor"))
    return Offered(rank, pid, descriptor, _text(fields["name"]))


def _read_digest(fields: Mapping[str, Any]) -> PredictionDigest:
    digest = PredictionDigest(
        _count(fields["rank"]),
        _count(fields["batch"]),
        tuple(_shape(shape) for shape in fields["shapes"]),
        tuple(_wire_dtype(name).name for name in fields["dtypes"]),
        tuple(_text(text) for text in fields["digests"]),
        _text(fields["inputs"]),
    )
    if not len(digest.shapes) == len(digest.dtypes) == len(digest.digests):
        raise ProtocolError("a digest needs one shape, dtype and checksum per output")
    return digest


def _read_waiting(fields: Mapping[str, Any]) -> Waiting:
    return Waiting(_count(fields["rank"]), _count(fields["peer"]), _text(fields["doing"]))


def _read_failed(fields: Mapping[str, Any]) -> Failed:
    echo_of = fields["echo_of"]
    return Failed(
        _count(fields["rank"]),
        _phase(fields["phase"]),
        _text(fields["kind"]),
        _text(fields["message"]),
        _text(fields["traceback"]),
        _count(fields["exit_code"]),
        None if echo_of is None else _count(echo_of),
    )


def _read_done(fields: Mapping[str, Any]) -> Done:
    report = fields["report"]
    seconds = {_phase(phase): _seconds(s) for phase, s in report["phase_seconds"].items()}
    counts = ("bytes_read", "bytes_held", "peak_memory_bytes", "batches")
    initial = tuple(map(_text, report["initial"]))
    metrics = report["metrics"]
    if not isinstance(metrics, dict | None):
        raise ProtocolError(f"expected metrics, not {metrics!r:.60}")
    used = {name: _count(report[name]) for name in counts}
    on_device = report["device_memory_bytes"]
    told = RankReport(
        seconds,
        **used,
        device_memory_bytes=None if on_device is None else _count(on_device),
        initial=initial,
        metrics=metrics,
        samples=None if report["samples"] is None else _count(report["samples"]),
        seen=_text(report["seen"]),
    )
    return Done(_count(fields["rank"]), told)


_READERS: Mapping[str, Callable[[Mapping[str, Any]], Message]] = {
    "PhaseEntered": _read_phase,
    "Fetched": _read_fetched,
    "Expected": _read_expected,
    "Offered": _read_offered,
    "PredictionDigest": _read_digest,
    "Waiting": _read_waiting,
    "Failed": _read_failed,
    "Done": _read_done,
}


def _count(value: Any) -> int:
    if type(value) is not int or value < 0:  # a bool is an int too
        raise ProtocolError(f"expected a number from 0, not {value!r:.60}")
    return value


def _rows(value: Any) -> Rows | None:
    return None if value is None else Rows(_count(value["start"]), _count(value["step"]) or 1)


def _seconds(value: Any) -> float:
    if type(value) not in (int, float) or not 0 <= value < math.inf:
        raise ProtocolError(f"expected seconds, not {value!r:.60}")
    return float(value)


def _text(value: Any) -> str:
    if not isinstance(value, str) or len(value) > MAX_TEXT:
        raise ProtocolError(f"expected a text, not {value!r:.60}")
    return value


def _phase(value: Any) -> str:
    if value not in PHASES:
        raise ProtocolError(f"expected a phase, not {value!r:.60}")
    return str(value)


def _shape(value: Any) -> tuple[int, ...]:
    if not isinstance(value, list) or len(value) > 32:
        raise ProtocolError(f"expected a shape, not {value!r:.60}")
    return tuple(_count(size) for size in value)


def _wire_dtype(value: Any) -> np.dtype[Any]:
    if _text(value) not in WIRE_DTYPES:
        raise ProtocolError(f"expected a dtype, not {value!r:.60}")
    return np.dtype(value)
