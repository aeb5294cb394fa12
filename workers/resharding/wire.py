"""Read and write the protobuf wire format; what the fields mean is for others to know.

A source is anything that ``source[start:stop]`` cuts bytes out of: bytes, or a window into a
file that is too large to read. The content of a field is never touched, only its bounds.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Protocol, TypeAlias

VARINT, FIXED64, BYTES, FIXED32 = 0, 1, 2, 5
END = 0  # in the place of a key: a message inside of another ends here
_FIXED_SIZES = {FIXED64: 8, FIXED32: 4}
_LONGEST_VARINT = 10
_AHEAD = 1 << 10  # bytes that are taken at once: the headers of a tensor, or of many small ones
_UINT64, _LAST_SHIFT = (1 << 64) - 1, 63  # the tenth byte of a number has its highest bit

# A field: its key, where its content begins and ends, its number. A tuple: there are many.
Field: TypeAlias = tuple[int, int, int, int]
Messages: TypeAlias = Mapping[int, "Messages"]  # keys of fields that are messages, and of theirs
_NO_MESSAGES: Messages = {}


class Source(Protocol):
    """Bytes that may be anywhere."""

    def __getitem__(self, bounds: slice, /) -> bytes: ...


class WireError(Exception):
    """The bytes are no protobuf message. Made into an error that names the file by its callers."""

    def __init__(self, offset: int, reason: str) -> None:
        super().__init__(offset, reason)
        self.offset, self.reason = offset, reason

    def __str__(self) -> str:
        return f"{self.reason} at byte {self.offset}"


def key_of(number: int, wire_type: int) -> int:
    """Return what stands before the content of a field."""
    return number << 3 | wire_type


def fields(
    source: Source, start: int, stop: int, messages: Messages = _NO_MESSAGES
) -> Iterator[Field]:
    """Yield the fields of the message ``source[start:stop]``, in order.

    The number of a VARINT is the signed one that was meant; that of another field is 0.

    Args:
        messages: which fields are messages. Behind each come those inside of it, then ``END``.

    Raises:
        WireError: a field is malformed, or reaches beyond the end of its message.
    """
    around: list[tuple[int, Messages]] = []  # where each of them ends, and what is inside of it
    position, limit = start, stop
    head, first, enough = b"", start, start - 1  # bytes from ``first`` on; they do up to ``enough``
    if isinstance(source, bytes):
        head, first, enough = source, 0, stop
    while True:
        if position == limit:
            if not around:
                return
            limit, messages = around.pop()
            yield END, position, position, 0
            continue
        if position > enough:
            first, head = position, source[position : min(position + _AHEAD, stop)]
            enough = first + len(head) - 2 * _LONGEST_VARINT  # a key, and a number or a size
            if first + len(head) == stop:
                enough = stop
        at = position - first
        number = size = 0
        try:  # nearly every key takes one byte, and so do most numbers
            key = head[at]
            at += 1
            if key >= 0x80:
                key, at = _decode(head, at)
            wire_type = key & 7
            if wire_type == BYTES:
                size = head[at]
                at += 1
                if size >= 0x80:
                    size, at = _decode(head, at)
            elif wire_type == VARINT:
                number = head[at]
                at += 1
                if number >= 0x80:
                    number, at = _decode(head, at)
                    number = signed(number)
            elif wire_type in _FIXED_SIZES:
                size = _FIXED_SIZES[wire_type]
            else:
                raise WireError(position, f"a field has the unknown type {wire_type}")
        except IndexError:
            raise WireError(position, "a number does not end") from None
        if key < 8:
            raise WireError(position, "a field has the number 0")
        begin = first + at
        end = begin + size
        if end > limit:
            raise WireError(position, f"{end - limit} bytes of field {key >> 3} are missing")
        yield key, begin, end, number
        if key in messages:
            around.append((limit, messages))
            position, limit, messages = begin, end, messages[key]
        else:
            position = end


def _decode(head: bytes, at: int) -> tuple[int, int]:
    """Return the number of several bytes that begins at ``head[at - 1]``, and where it ends.

    Raises:
        IndexError: it does not end.
    """
    value, shift = head[at - 1] & 0x7F, 7
    while (byte := head[at]) >= 0x80:
        value |= (byte & 0x7F) << shift
        at += 1
        shift += 7
        if shift > _LAST_SHIFT:
            raise IndexError
    return (value | byte << shift) & _UINT64, at + 1


def integers(source: Source, field: Field, most: int = 1 << 17) -> list[int]:
    """Return the numbers of a repeated integer field, packed or not; no more than ``most``."""
    key, start, stop, number = field
    if key & 7 == VARINT:
        return [number]
    if key & 7 != BYTES:
        raise WireError(start, f"field {key >> 3} holds no numbers")
    packed = source[start : min(stop, start + (most + 1) * _LONGEST_VARINT)]
    numbers: list[int] = []
    at = 0
    while at < len(packed) and len(numbers) <= most:
        number = packed[at]
        at += 1
        if number >= 0x80:
            try:
                number, at = _decode(packed, at)
            except IndexError:
                raise WireError(start + at - 1, "a number does not end") from None
        numbers.append(signed(number))
    if len(numbers) > most:
        raise WireError(start, f"field {key >> 3} has more than {most} numbers")
    return numbers


def integer(field: Field) -> int:
    """Return the number of a field that is not repeated."""
    key, start, _, number = field
    if key & 7 != VARINT:
        raise WireError(start, f"field {key >> 3} is no number")
    return number


def text(source: Source, field: Field, longest: int = 1 << 16) -> str:
    """Return the content of a short string field."""
    key, start, stop, _ = field
    if key & 7 != BYTES or stop - start > longest:
        raise WireError(start, f"field {key >> 3} is no short text")
    try:
        return source[start:stop].decode()
    except UnicodeDecodeError as error:
        raise WireError(start, f"field {key >> 3} is not UTF-8") from error


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
