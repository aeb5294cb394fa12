"""Say how messages look on the wire: one JSON header frame, then the raw bytes of arrays.

Nothing is ever executed to read one: whatever does not fit is a ``ProtocolError``.
"""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict
from itertools import islice
from typing import Any, TypeAlias

import numpy as np

from workers.protocol import (
    PHASES,
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
    bytes_of,
)
from workers.slots import SlotReader

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


def _chunks(array: np.ndarray) -> Iterator[memoryview]:
    data = bytes_of(array)
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
        None if fields["at_s"] is None else _seconds(fields["at_s"]),
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
        batch_rows=None if report["batch_rows"] is None else _count(report["batch_rows"]),
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
