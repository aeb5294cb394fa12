"""The wire: what goes in comes out, and what is no message is refused by name."""

from __future__ import annotations

import json
from functools import partial

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from workers import wire_format
from workers.protocol import (
    Done,
    Failed,
    Fetched,
    Message,
    PhaseEntered,
    Prediction,
    PredictionDigest,
    RankReport,
    Waiting,
)
from workers.wire_format import ProtocolError, decode, encode

REPORT = RankReport({"load": 0.5, "predict": 2.0}, 1024, 512, 1 << 30, batches=3)


@pytest.mark.parametrize(
    "message",
    [
        PhaseEntered(3, "load"),
        PredictionDigest(1, 0, ((2, 3), ()), ("float32", "int64"), ("ab", "cd"), "ef"),
        Fetched(2, 10**12, 10**13),
        Waiting(2, 1, "AllReduce after MatMul"),
        Failed(1, "load", "OSError", "no such file: 'ä'", "Traceback ...", 2),
        Failed(1, "predict", "PeerLostError", "rank 2 is gone", "", 1, echo_of=2),
        Done(0, REPORT),
    ],
    ids=lambda message: type(message).__name__,
)
def test_a_message_comes_out_as_it_went_in(message: Message) -> None:
    assert decode(encode(message)) == message


@pytest.mark.parametrize("dtype", sorted(wire_format.WIRE_DTYPES))
def test_arrays_of_every_dtype_come_out_as_they_went_in(dtype: str) -> None:
    array = np.arange(6).reshape(2, 3).astype(dtype)
    received = decode(encode(Prediction(0, 4, (array,))))
    assert isinstance(received, Prediction)
    assert (received.rank, received.batch) == (0, 4)
    assert received.outputs[0].dtype == dtype
    np.testing.assert_array_equal(received.outputs[0], array)


def test_odd_arrays_come_out_as_they_went_in() -> None:
    arrays = (
        np.float32(3).reshape(()),  # 0-d
        np.zeros((0, 4), np.int8),  # empty
        np.arange(12, dtype=np.int32).reshape(3, 4).T[::2],  # not contiguous
        np.arange(3, dtype=">f8"),  # the other byte order
    )
    received = decode(encode(Prediction(0, 0, arrays)))
    assert isinstance(received, Prediction)
    for sent, got in zip(arrays, received.outputs, strict=True):
        assert got.shape == sent.shape
        np.testing.assert_array_equal(got, sent)


def test_a_large_array_travels_in_frames_that_the_collector_accepts(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(wire_format, "CHUNK_BYTES", 16)
    array = np.arange(10, dtype=np.float32)  # 40 bytes: 16 + 16 + 8
    frames = encode(Prediction(0, 0, (array,)))
    assert [len(frame) for frame in frames[1:]] == [16, 16, 8]
    received = decode(frames)
    assert isinstance(received, Prediction)
    np.testing.assert_array_equal(received.outputs[0], array)


def test_equal_arrays_have_equal_digests_whatever_their_memory_looks_like() -> None:
    array = np.arange(6, dtype=np.float32).reshape(2, 3)
    assert PredictionDigest.of(1, 0, [array]) == PredictionDigest.of(1, 0, [array.T.copy().T])
    assert PredictionDigest.of(1, 0, [array]) == PredictionDigest.of(1, 0, [array.astype(">f4")])
    changed = array.copy()
    changed[1, 2] += 1
    assert PredictionDigest.of(1, 0, [array]) != PredictionDigest.of(1, 0, [changed])


def test_a_dtype_that_no_npy_file_can_hold_is_refused_before_it_is_sent() -> None:
    with pytest.raises(ProtocolError, match="dtype object.*cast to float32"):
        encode(Prediction(0, 0, (np.array([None]),)))


def header(**fields: object) -> list[bytes]:
    return [json.dumps(fields).encode()]


prediction = partial(header, type="Prediction", inputs="", rank=0, batch=0)
digest = partial(header, type="PredictionDigest", inputs="", rank=0, batch=0)


@pytest.mark.parametrize(
    "frames",
    [
        [],
        [b""],
        [b"\xff\xfe"],
        [b"[" * 100_000],
        header(),
        header(type="PhaseEntered"),
        header(type="PhaseEntered", rank=-1, phase="load"),
        header(type="PhaseEntered", rank=True, phase="load"),
        header(type="PhaseEntered", rank=0, phase="lunch"),
        header(type="PhaseEntered", rank=0, phase=["load"]),
        header(type="PhaseEntered", rank=0, phase="load") + [b"more"],
        digest(shapes=[[1]], dtypes=[], digests=[]),
        prediction(outputs=[{"shape": [9], "dtype": "object"}]),
        prediction(outputs=[{"shape": [-2], "dtype": "int8"}]),
        prediction(outputs=[{"shape": [2], "dtype": "int8"}])
        + [b"123"],
        prediction(outputs=[{"shape": [1 << 62], "dtype": "int8"}])
        + [b"123"],
        prediction(outputs=[]) + [b"more"],
        header(type="Done", rank=0, report={"phase_seconds": {"load": -1}}),
        header(type="__class__", rank=0),
    ],
    ids=range(19),
)
def test_what_is_no_message_is_refused(frames: list[bytes]) -> None:
    with pytest.raises(ProtocolError):
        decode(frames)


@given(st.lists(st.binary(max_size=64), max_size=4))
def test_garbage_is_refused(frames: list[bytes]) -> None:
    with pytest.raises(ProtocolError):
        decode(frames)
