from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from workers.resharding import wire
from workers.resharding.wire import BYTES, END, FIXED32, FIXED64, VARINT, Field, WireError, key_of


def read(message: bytes) -> list[Field]:
    return list(wire.fields(message, 0, len(message)))


def test_fields_are_located_not_copied() -> None:
    message = wire.number_field(1, 300) + wire.bytes_field(2, b"abc")
    assert message.hex(" ") == "08 ac 02 12 03 61 62 63"
    number, content = read(message)
    assert number == (key_of(1, VARINT), 3, 3, 300)
    assert content == (key_of(2, BYTES), 5, 8, 0)
    assert wire.text(message, content) == "abc"


def test_fixed_size_fields_are_stepped_over() -> None:
    message = b"\x0d1234" + b"\x1112345678" + wire.number_field(3, 7)
    assert read(message) == [
        (key_of(1, FIXED32), 1, 5, 0),
        (key_of(2, FIXED64), 6, 14, 0),
        (key_of(3, VARINT), 16, 16, 7),
    ]


def test_fields_inside_of_a_message_come_behind_it() -> None:
    inner = wire.number_field(1, 5) + wire.bytes_field(2, b"")
    message = wire.bytes_field(3, inner) + wire.bytes_field(2, inner)
    messages = {key_of(3, BYTES): {key_of(2, BYTES): {}}}
    assert list(wire.fields(message, 0, len(message), messages)) == [
        (key_of(3, BYTES), 2, 6, 0),
        (key_of(1, VARINT), 4, 4, 5),
        (key_of(2, BYTES), 6, 6, 0),
        (END, 6, 6, 0),  # of the empty one
        (END, 6, 6, 0),
        (key_of(2, BYTES), 8, 12, 0),  # is none inside of this one
    ]


def test_a_field_does_not_reach_beyond_the_message_that_it_is_in() -> None:
    message = wire.bytes_field(1, b"\x12\x03ab") + b"cde"
    with pytest.raises(WireError, match="1 bytes of field 2 are missing at byte 2"):
        list(wire.fields(message, 0, len(message), {key_of(1, BYTES): {}}))


class Far:
    """Bytes that are not in memory."""

    def __init__(self, content: bytes) -> None:
        self.content, self.read = content, 0

    def __getitem__(self, bounds: slice) -> bytes:
        assert 0 <= bounds.start <= bounds.stop <= len(self.content)
        self.read += bounds.stop - bounds.start
        return self.content[bounds]


@given(st.lists(st.integers(0, 3000), max_size=8), st.integers(0, 20))
def test_bytes_that_are_elsewhere_are_read_alike(sizes: list[int], cut: int) -> None:
    message = b"".join(
        wire.bytes_field(1, wire.number_field(size + 1, -size) + wire.bytes_field(2, bytes(size)))
        for size in sizes
    )
    message = message[: len(message) - cut]
    far = Far(message)
    found: list[list[Field]] = []
    reasons = []
    for source in (message, far):
        found.append([])
        try:
            for field in wire.fields(source, 0, len(message), {key_of(1, BYTES): {}}):
                found[-1].append(field)
        except WireError as error:
            reasons.append(str(error))
    assert found[0] == found[1]
    assert len(reasons) != 1 and len({*reasons}) < 2


def test_of_long_content_nothing_is_read() -> None:
    far = Far(b"".join(wire.bytes_field(1, bytes(100_000)) for _ in range(10)))
    assert len(list(wire.fields(far, 0, len(far.content)))) == 10
    assert far.read < 11_000


@given(st.integers(-(1 << 63), (1 << 63) - 1))
def test_a_signed_number_survives(value: int) -> None:
    (field,) = read(wire.number_field(1, value))
    assert wire.integer(field) == value


def test_minus_one_takes_ten_bytes() -> None:
    assert len(wire.varint(-1)) == 10


def test_repeated_numbers_may_be_packed() -> None:
    packed = wire.bytes_field(1, wire.varint(3) + wire.varint(-1))
    assert wire.integers(packed, read(packed)[0]) == [3, -1]


def test_of_packed_numbers_no_more_are_read_than_there_may_be() -> None:
    packed = wire.bytes_field(1, bytes(5))
    assert wire.integers(packed, read(packed)[0], most=5) == [0] * 5
    with pytest.raises(WireError, match="field 1 has more than 4 numbers"):
        wire.integers(packed, read(packed)[0], most=4)
    torn = wire.bytes_field(1, b"\x01\x80")
    with pytest.raises(WireError, match="a number does not end at byte 3"):
        wire.integers(torn, read(torn)[0])


@pytest.mark.parametrize(
    ("message", "reason"),
    [
        (b"\x12\x05abc", "2 bytes of field 2 are missing"),
        (b"\x08\x80", "does not end"),
        (b"\x08" + b"\xff" * 11, "does not end"),
        (b"\x08" + b"\xff" * 10 + b"\x01", "does not end"),
        (b"\x08", "does not end"),
        (b"\x88", "does not end"),
        (b"\x0b", "unknown type 3"),
        (b"\x02\x01a", "number 0"),
        (b"\x0d12", "2 bytes of field 1 are missing"),
    ],
)
def test_what_is_no_message_is_refused(message: bytes, reason: str) -> None:
    with pytest.raises(WireError, match=reason):
        read(message)


@given(st.binary(max_size=40))
def test_no_bytes_do_worse_than_a_wire_error(content: bytes) -> None:
    try:
        found = read(content)
    except WireError:
        return
    assert all(0 <= start <= stop <= len(content) for _, start, stop, _ in found)
