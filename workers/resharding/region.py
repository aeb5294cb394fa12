"""Half-open N-dimensional boxes and their algebra. No tensors: only numbers."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from itertools import combinations
from operator import add, lt, sub
from typing import NamedTuple


class Region(NamedTuple):
    """The elements ``start[d] <= i[d] < stop[d]`` of a tensor; a scalar has no dims."""

    start: tuple[int, ...]
    stop: tuple[int, ...]

    @classmethod
    def whole(cls, shape: tuple[int, ...]) -> Region:
        """Return the box of a whole tensor."""
        return cls((0,) * len(shape), tuple(shape))

    @property
    def shape(self) -> tuple[int, ...]:
        return tuple(map(sub, self.stop, self.start))

    @property
    def num_elements(self) -> int:
        return math.prod(map(sub, self.stop, self.start))

    def intersect(self, other: Region) -> Region | None:
        """Return the elements that both hold; None if there are none."""
        start = tuple(map(max, self.start, other.start))
        stop = tuple(map(min, self.stop, other.stop))
        return Region(start, stop) if all(map(lt, start, stop)) else None

    def relative_to(self, origin: Region) -> Region:
        """Return the same box, counted from the first element of ``origin``."""
        return Region(
            tuple(map(sub, self.start, origin.start)), tuple(map(sub, self.stop, origin.start))
        )

    def placed_in(self, origin: Region) -> Region:
        """Return a box that is counted from the first element of ``origin``, as it is there."""
        start = tuple(map(add, self.start, origin.start))
        return Region(start, tuple(map(add, self.stop, origin.start)))

    def shifted(self, rows: int) -> Region:
        """Return the same box, ``rows`` further along dim 0."""
        start, stop = (self.start[0] + rows, *self.start[1:]), (self.stop[0] + rows, *self.stop[1:])
        return Region(start, stop)

    def as_slices(self) -> tuple[slice, ...]:
        """Return the index that cuts this box out of an array."""
        return tuple(map(slice, self.start, self.stop))

    def __str__(self) -> str:
        return "[" + ", ".join(f"{a}:{b}" for a, b in zip(self.start, self.stop)) + "]"


def flat_boxes(shape: tuple[int, ...], first: int, last: int) -> Iterator[Region]:
    """Yield boxes that together are the elements ``first`` .. ``last`` of a tensor, row by row.

    The elements of each box are neighbours in memory, and the boxes come in that order.
    """
    if first >= last:
        return
    if not shape:
        yield Region((), ())
        return
    row = math.prod(shape[1:])
    whole_from, whole_to = -(-first // row), last // row  # the rows that are whole
    if whole_from > whole_to:
        yield from _within_row(shape, whole_to, first, last)
        return
    yield from _within_row(shape, whole_from - 1, first, whole_from * row)
    if whole_from < whole_to:
        rest = shape[1:]
        yield Region((whole_from, *(0 for _ in rest)), (whole_to, *rest))
    yield from _within_row(shape, whole_to, whole_to * row, last)


def _within_row(shape: tuple[int, ...], index: int, first: int, last: int) -> Iterator[Region]:
    offset = index * math.prod(shape[1:])
    for box in flat_boxes(shape[1:], first - offset, last - offset):
        yield Region((index, *box.start), (index + 1, *box.stop))


def row_blocks(shape: tuple[int, ...], most: int) -> Iterator[Region]:
    """Yield boxes of at most ``most`` elements, each a run of memory; they make up a tensor."""
    row = math.prod(shape[1:])
    if not shape or math.prod(shape) <= most:
        yield Region.whole(shape)
    elif row <= most:
        rest, step = shape[1:], most // row
        for first in range(0, shape[0], step):
            yield Region((first, *(0 for _ in rest)), (min(first + step, shape[0]), *rest))
    else:
        for index in range(shape[0]):
            for box in row_blocks(shape[1:], most):
                yield Region((index, *box.start), (index + 1, *box.stop))


def first_overlap(boxes: Sequence[Region]) -> tuple[int, int] | None:
    """Return the indices of two non-empty boxes that share an element; None if all are disjoint.

    Boxes of a grid cost one sort for each dim; only boxes that form none are compared in pairs.
    """
    groups = [list(range(len(boxes)))]
    for dim in range(len(boxes[0].start) if boxes else 0):
        groups = [part for group in groups for part in _clusters(boxes, group, dim)]
    for group in groups:
        for one, other in combinations(sorted(group), 2):
            if boxes[one].intersect(boxes[other]) is not None:
                return one, other
    return None


def _clusters(boxes: Sequence[Region], group: list[int], dim: int) -> list[list[int]]:
    """Divide a group where no box of it crosses, going along one dim."""
    if len(group) < 2:
        return []
    clusters: list[list[int]] = []
    end = -1
    for index in sorted(group, key=lambda index: boxes[index].start[dim]):
        if boxes[index].start[dim] >= end:
            clusters.append([])
        clusters[-1].append(index)
        end = max(end, boxes[index].stop[dim])
    return clusters
