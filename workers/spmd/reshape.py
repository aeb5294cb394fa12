"""Decide which splits of a tensor survive a reshape. Only numbers."""

from __future__ import annotations

import math
from collections.abc import Iterator

from workers.resharding.layout import Layout

_Run = tuple[range, range]  # dims of the old shape, and those of the new, with the same elements


def through_reshape(
    layout: Layout, source: tuple[int, ...], target: tuple[int, ...]
) -> tuple[Layout, Layout]:
    """Return what of ``layout`` can be kept, and the layout of the reshaped tensor.

    A reshape keeps the row-major order of the elements. Where a run of old dims holds the same
    elements as a run of new ones, a split stays local if it cuts both runs into the same
    contiguous parts: it cuts the first dim of a run, or a later one when all before it are
    cut into single rows.

    Returns:
        The layout to bring the tensor into (the other splits gathered), and the layout that a
        reshape of each rank's slice then yields.
    """
    if 0 in source or 0 in target:
        matrix = layout.device_matrix
        return Layout(matrix, ((),) * len(source)), Layout(matrix, ((),) * len(target))
    kept: list[tuple[int, ...]] = [()] * len(source)
    gained: list[tuple[int, ...]] = [()] * len(target)
    for old, new in _runs(source, target):
        for dim, place, axes in _carried(layout, source, target, old, new):
            kept[dim] += axes
            gained[place] += axes
    return Layout(layout.device_matrix, tuple(kept)), Layout(layout.device_matrix, tuple(gained))


def _runs(source: tuple[int, ...], target: tuple[int, ...]) -> Iterator[_Run]:
    """Yield the smallest runs of dims that hold the same elements in both shapes."""
    i = j = 0
    while i < len(source) or j < len(target):
        first_i, first_j = i, j
        left = right = 1
        while left != right or (i == first_i and j == first_j):
            if left <= right and i < len(source):
                left, i = left * source[i], i + 1
            else:
                right, j = right * target[j], j + 1
        yield range(first_i, i), range(first_j, j)


def _carried(
    layout: Layout, source: tuple[int, ...], target: tuple[int, ...], old: range, new: range
) -> Iterator[tuple[int, int, tuple[int, ...]]]:
    """Yield (old dim, new dim, axes) for the splits of one run that both shapes can keep."""
    places = [j for j in new if target[j] > 1]
    room = math.prod(target[j] for j in places[:1])  # how often the current place can be cut
    for dim in (i for i in old if source[i] > 1):
        remaining = source[dim]
        for axis in layout.axes[dim]:
            size = layout.device_matrix[axis]
            while room == 1 and places:
                places.pop(0)
                room = math.prod(target[j] for j in places[:1])
            if not places or room % size:
                return
            yield dim, places[0], (axis,)
            room //= size
            remaining //= size
        if remaining > 1:
            return  # what follows in the run is cut across, not along
