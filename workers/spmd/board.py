"""Let the ranks of one host see which call each of them is in, to find out why nobody moves on."""

from __future__ import annotations

import mmap
import os
import struct
from functools import lru_cache
from typing import NamedTuple

THE_END = "the end of its data"
_HEAD = struct.Struct("<QHH")  # number of the call in its group, bytes of group and of call
_WHERE = struct.Struct("<HH")
_CALL_BYTES = 1000
_MEMBER_BYTES = 8  # of a rank's number and a space


class Entry(NamedTuple):
    """The last call that a rank has begun."""

    number: int  # how many calls it has begun in this group
    group: tuple[int, ...]
    call: str


class Board:
    """One row for each rank, which it alone writes; rows are read only when nobody moves on."""

    def __init__(self, rank: int, rank_size: int, fd: int) -> None:
        """Take over the descriptor that ``create`` made, here or in the process of a peer."""
        self._rank, self._row = rank, _row_bytes(rank_size)
        self._mapped = mmap.mmap(fd, rank_size * self._row)
        os.close(fd)

    @staticmethod
    def create(rank_size: int) -> int:
        """Return the descriptor of an empty board."""
        fd = os.memfd_create("board")
        os.ftruncate(fd, rank_size * _row_bytes(rank_size))
        return fd

    def post(self, entry: Entry) -> None:
        """Write down the call that this rank begins."""
        row = entry.number.to_bytes(8, "little") + _where(entry.group, entry.call)
        begin = self._rank * self._row
        self._mapped[begin : begin + len(row)] = row

    def read(self, rank: int) -> Entry:
        """Return what a rank has written last. It may be writing at this moment."""
        row = self._mapped[rank * self._row : (rank + 1) * self._row]
        number, group, call = _HEAD.unpack_from(row)
        begin, middle, end = _HEAD.size, _HEAD.size + group, _HEAD.size + group + call
        return Entry(number, parse(row[begin:middle]), row[middle:end].decode(errors="replace"))


def named(group: tuple[int, ...]) -> bytes:
    """Return a group in few bytes."""
    return " ".join(map(str, group)).encode()


@lru_cache(maxsize=1024)
def _where(members: tuple[int, ...], name: str) -> bytes:
    group, call = named(members), name.encode()[:_CALL_BYTES]
    return _WHERE.pack(len(group), len(call)) + group + call


def parse(name: bytes) -> tuple[int, ...]:
    """Return the group that was ``named``."""
    return tuple(map(int, name.split()))


def _row_bytes(rank_size: int) -> int:
    return _HEAD.size + _CALL_BYTES + _MEMBER_BYTES * rank_size
