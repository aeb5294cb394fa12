from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from workers.resharding import wire
from workers.resharding.wire import Field, WireError


def read(message: bytes) -> list[Field]:
    return list(wire.fields(message, 0, len(message)))


def test_fields_are_located_not_copied() -> None:
    message = wire.number_field(1, 300) + wire.bytes_field(2, b"abc")
    assert message.hex(" ") == "08 ac 02 12 03 61 62 63"
    number, content = read(message)
    assert (number.number, number.value) == (1, 300)
    assert (content.number, content.start, content.stop) == (2, 5, 8)
    assert content.content(message) == b"abc"


def test_fixed_size_fields_are_stepped_over() -> None:
    message = b"\x0d1234" + b"\x1112345678" + wire.number_field(3, 7)
    assert [field.number for field in read(message)] == [1, 2, 3]


@given(st.integers(-(1 << 63), (1 << 63) - 1))
def test_a_signed_number_survives(value: int) -> None:
    (field,) = read(wire.number_field(1, value))
    assert wire.integer(field) == value


def test_minus_one_takes_ten_bytes() -> None:
    assert len(wire.varint(-1)) == 10


def test_repeated_numbers_may_be_packed() -> None:
    packed = wire.bytes_field(1, wire.varint(3) + wire.varint(-1))
    assert wire.integers(packed, read(packed)[0]) == [3, -1]


@pytest.mark.parametrize(
    ("message", "reason"),
    [
        (b"\x12\x05abc", "2 bytes of field 2 are missing"),
        (b"\x08\x80", "does not end"),
        (b"\x08" + b"\xff" * 11, "does not end"),
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
    assert all(0 <= field.start <= field.stop <= len(content) for field in found)
