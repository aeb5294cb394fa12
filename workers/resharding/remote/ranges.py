"""Calculate with ranges of bytes: join those that lie close, take some away, cut long ones."""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Iterable, Iterator, Sequence
from typing import TypeAlias

from workers.resharding.strided import Strided

Range: TypeAlias = tuple[int, int]  # start and stop; never empty in what is returned


def merged(ranges: Iterable[Range], gap: int = 0) -> list[Range]:
    """Return the ranges in order; those become one that have at most ``gap`` bytes between them."""
    joined: list[Range] = []
    for start, stop in sorted(ranges):
        if joined and start - joined[-1][1] <= gap:
            joined[-1] = joined[-1][0], max(stop, joined[-1][1])
        elif start < stop:
            joined.append((start, stop))
    return joined


def without(ranges: Sequence[Range], held: Sequence[Range]) -> list[Range]:
    """Return what of some ranges is not in others; both must have been merged."""
    left: list[Range] = []
    first = 0
    for start, stop in ranges:
        while first < len(held) and held[first][1] <= start:
            first += 1
        number = first
        while start < stop and number < len(held) and held[number][0] < stop:
            if start < held[number][0]:
                left.append((start, held[number][0]))
            start = max(start, held[number][1])
            number += 1
        if start < stop:
            left.append((start, stop))
    return left


def touches(part: Range, ranges: Sequence[Range]) -> bool:
    """Return whether a range has bytes of others, which must have been merged."""
    number = bisect_left(ranges, (part[1],)) - 1  # the last that begins before the end
    return number >= 0 and ranges[number][1] > part[0]


def within(part: Range, ranges: Sequence[Range]) -> bool:
    """Return whether all of a range is in others, which must have been merged."""
    number = bisect_left(ranges, (part[0] + 1,)) - 1  # the last that begins before it, or with it
    return number >= 0 and ranges[number][1] >= part[1]


def size(ranges: Iterable[Range]) -> int:
    """Return how many bytes ranges are that do not overlap."""
    return sum(stop - start for start, stop in ranges)


def cut(ranges: Iterable[Range], most: int) -> list[Range]:
    """Return the same bytes in ranges of at most ``most``."""
    return [
        (first, min(first + most, stop))
        for start, stop in ranges
        for first in range(start, stop, most)
    ]


def runs(box: Strided, gap: int) -> Iterator[Range]:
    """Yield the bytes of a box, and those between them where there are at most ``gap``."""
    if box.nbytes == 0:
        return
    if not box.shape or _is_dense(box, gap):
        yield box.offset, box.stop
        return
    for index in range(box.shape[0]):
        yield from runs(box.row(index), gap)


def _is_dense(box: Strided, gap: int) -> bool:
    inner = box
    while inner.shape:
        size, stride = inner.shape[0], inner.strides[0]
        inner = inner.row(0)
        if size > 1 and stride - inner.span > gap:
            return False
    return True
