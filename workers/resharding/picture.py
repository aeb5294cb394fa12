"""Draw in text which rank holds which part of a parameter. Only numbers and characters."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from functools import lru_cache

from workers.resharding.layout import Layout
from workers.resharding.region import Region

_MOST_ROWS, _MOST_COLUMNS, _MOST_PARTS = 16, 8, 256  # more than that is told in words
_MOST_LISTED = 8  # ranks of a run with gaps

_Bounds = tuple[int, ...]


@lru_cache(maxsize=1024)
def draw(layout: Layout) -> tuple[str, ...]:
    """Return the lines of a picture: a cell for each part of the first two dims.

    A cell names the ranks that hold the part, with the parts of further dims in order::

        +-----+-----+
        | 0 2 | 1 3 |
        +-----+-----+
    """
    fields, dims = layout.field_size or 1, len(layout.axes)
    unit = layout.full_shape((fields, *(1,) * dims)[:dims])  # a part is one row, or of a field
    parts = layout.full_shape((1,) * dims) if not layout.split_sizes else layout.split_counts
    counts = math.prod(parts[:1]) * fields, math.prod(parts[1:2])
    shown = counts[0] <= _MOST_ROWS and counts[1] <= _MOST_COLUMNS
    if not shown or math.prod(parts) > _MOST_PARTS:
        return (f"{counts[0]} x {counts[1]} parts on ranks {ranges(layout.ranks)}",)
    holders: dict[Region, list[int]] = {}
    for rank in layout.ranks:
        for box in layout.boxes(rank, unit):
            holders.setdefault(box, []).append(rank)
    rows = sorted({_bounds(box, 0) for box in holders})
    columns = sorted({_bounds(box, 1) for box in holders})
    cells: dict[tuple[_Bounds, _Bounds], list[str]] = {}
    for box, ranks in sorted(holders.items()):
        cells.setdefault((_bounds(box, 0), _bounds(box, 1)), []).append(ranges(ranks))
    texts = [["/".join(cells.get((row, column), ["-"])) for column in columns] for row in rows]
    widths = [max(len(line[number]) for line in texts) for number in range(len(columns))]
    border = "+" + "".join("-" * (width + 2) + "+" for width in widths)
    return (border, *(line for row in texts for line in _row(row, widths, border)))


def ranges(ranks: Sequence[int]) -> str:
    """Return ``0 2 4-7``, and ``0 8 ... 1016`` for many at even distances."""
    distances = {later - earlier for earlier, later in zip(ranks, ranks[1:])}
    if len(ranks) > _MOST_LISTED and len(distances) == 1 and distances != {1}:
        return f"{ranks[0]} {ranks[1]} ... {ranks[-1]}"
    parts: list[list[int]] = []
    for rank in ranks:
        if parts and rank == parts[-1][-1] + 1:
            parts[-1].append(rank)
        else:
            parts.append([rank])
    texts = [f"{p[0]}-{p[-1]}" if len(p) > 2 else " ".join(map(str, p)) for p in parts]
    return " ".join(texts if len(texts) <= _MOST_LISTED else [*texts[:2], "...", texts[-1]])


def _bounds(box: Region, dim: int) -> _Bounds:
    """Return where a box begins and ends in a dim; a part without rows is one of its own."""
    return box.start[dim : dim + 1] + box.stop[dim : dim + 1]


def _row(texts: Sequence[str], widths: Sequence[int], border: str) -> Iterator[str]:
    cells = (f" {text:<{width}} |" for text, width in zip(texts, widths))
    yield "|" + "".join(cells)
    yield border
