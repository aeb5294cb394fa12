"""Read and write the protobuf wire format; what the fields mean is for others to know.

A source is anything that ``source[start:stop]`` cuts bytes out of: bytes, or a window into a
file that is too large to read. The content of a field is never touched, only its bounds.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple, Protocol

VARINT, FIXED64, BYTES, FIXED32 = 0, 1, 2, 5
_FIXED_SIZES = {FIXED64: 8, FIXED32: 4}
_LONGEST_VARINT = 10
_AHEAD = 128  # bytes that are taken at once; the fields of a header are short
_UINT64 = (1 << 64) - 1
_new = tuple.__new__


class Source(Protocol):
    """Bytes that may be anywhere."""

    def __getitem__(self, bounds: slice, /) -> bytes: ...


class Field(NamedTuple):
    """One field of a message: ``source[start:stop]``, or a number."""

    number: int
    wire_type: int
    start: int  # of the content
    stop: int
    value: int = 0  # of a VARINT

    @property
    def size(self) -> int:
        return self.stop - self.start

    def content(self, source: Source) -> bytes:
        return source[self.start : self.stop]


class WireError(Exception):
    """The bytes are no protobuf message. Made into an error that names the file by its callers."""

    def __init__(self, offset: int, reason: str) -> None:
        super().__init__(offset, reason)
        self.offset, self.reason = offset, reason

    def __str__(self) -> str:
        return f"{self.reason} at byte {self.offset}"


def fields(source: Source, start: int, stop: int) -> Iterator[Field]:
    """Yield the fields of the message ``source[start:stop]``, in order.

    Raises:
        WireError: a field is malformed, or reaches beyond ``stop``.
    """
    position = first = start
    head = b""  # the bytes from ``first`` on
    while position < stop:
        at = position - first
        if at + 2 * _LONGEST_VARINT > len(head) and first + len(head) < stop:
            ahead = position + _AHEAD
            first, head, at = position, source[position : ahead if ahead < stop else stop], 0
        key = head[at]
        at += 1
        if key >= 0x80:
            key, at = _decode(head, at - 1, position)
        number, wire_type = key >> 3, key & 7
        if number == 0:
            raise WireError(position, "a field has the number 0")
        value = size = 0
        if wire_type in _FIXED_SIZES:
            size = _FIXED_SIZES[wire_type]
        elif wire_type > BYTES:
            raise WireError(position, f"a field has the unknown type {wire_type}")
        else:
            value = head[at] if at < len(head) else 0x80  # the usual number takes one byte
            at += 1
            if value >= 0x80:
                value, at = _decode(head, at - 1, position)
            if wire_type == BYTES:
                value, size = 0, value
        begin = first + at
        end = begin + size
        if end > stop:
            raise WireError(position, f"{end - stop} bytes of field {number} are missing")
        yield _new(Field, (number, wire_type, begin, end, value))  # thrice as fast as Field(…)
        position = end


def read_varint(source: Source, position: int, stop: int) -> tuple[int, int]:
    """Return the unsigned number that starts at ``position``, and where it ends."""
    head = source[position : min(position + _LONGEST_VARINT, stop)]
    value, used = _decode(head, 0, position)
    return value, position + used


def _decode(head: bytes, at: int, position: int) -> tuple[int, int]:
    """Return the number at an index of ``head``, and the index after it.

    Args:
        position: of ``head`` in the file, for errors.
    """
    if at < len(head) and head[at] < 0x80:
        return head[at], at + 1
    value = 0
    for index in range(at, min(at + _LONGEST_VARINT, len(head))):
        byte = head[index]
        value |= (byte & 0x7F) << (7 * (index - at))
        if byte < 0x80:
            return value & _UINT64, index + 1
    raise WireError(position, "a number does not end")


def integers(source: Source, field: Field, most: int = 1 << 17) -> list[int]:
    """Return the numbers of a repeated integer field, packed or not; no more than ``most``."""
    if field.wire_type == VARINT:
        return [signed(field.value)]
    if field.wire_type != BYTES:
        raise WireError(field.start, f"field {field.number} holds no numbers")
    numbers, position = [], field.start
    while position < field.stop:
        value, position = read_varint(source, position, field.stop)
        numbers.append(signed(value))
        if len(numbers) > most:
            raise WireError(field.start, f"field {field.number} has more than {most} numbers")
    return numbers


def integer(field: Field) -> int:
    """Return the number of a field that is not repeated."""
    if field.wire_type != VARINT:
        raise WireError(field.start, f"field {field.number} is no number")
    return signed(field.value)


def text(source: Source, field: Field, longest: int = 1 << 16) -> str:
    """Return the content of a short string field."""
    if field.wire_type != BYTES or field.size > longest:
        raise WireError(field.start, f"field {field.number} is no short text")
    try:
        return field.content(source).decode()
    except UnicodeDecodeError as error:
        raise WireError(field.start, f"field {field.number} is not UTF-8") from error


def signed(value: int) -> int:
    """Return a 64-bit number of protobuf as the int32 or int64 that was meant."""
    return value - (1 << 64) if value >= 1 << 63 else value


def varint(value: int) -> bytes:
    """Write one number; a negative one takes ten bytes."""
    value &= _UINT64
    out = bytearray()
    while value >= 0x80:
        out.append(value & 0x7F | 0x80)
        value >>= 7
    out.append(value)
    return bytes(out)


def number_field(number: int, value: int) -> bytes:
    return varint(number << 3 | VARINT) + varint(value)


def bytes_field(number: int, content: bytes) -> bytes:
    return bytes_field_header(number, len(content)) + content


def bytes_field_header(number: int, size: int) -> bytes:
    """Write what stands before ``size`` bytes of content that the caller writes itself."""
    return varint(number << 3 | BYTES) + varint(size)
