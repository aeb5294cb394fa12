"""Draw in text which rank holds which part of a parameter. Only numbers and characters."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from workers.resharding.layout import Layout
from workers.resharding.region import Region

_MOST_ROWS, _MOST_COLUMNS = 16, 8  # of a picture; a larger grid is told in words

_Bounds = tuple[int, ...]


def draw(layout: Layout, full_shape: Sequence[int]) -> list[str]:
    """Return the lines of a picture: a cell for each part of the first two dims.

    A cell names the ranks that hold the part, with the parts of further dims in order::

        +-----+-----+
        | 0 2 | 1 3 |
        +-----+-----+
    """
    holders: dict[Region, list[int]] = {}
    for rank in layout.ranks:
        for box in layout.boxes(rank, full_shape):
            holders.setdefault(box, []).append(rank)
    rows = sorted({_bounds(box, 0) for box in holders})
    columns = sorted({_bounds(box, 1) for box in holders})
    if len(rows) > _MOST_ROWS or len(columns) > _MOST_COLUMNS:
        return [f"{len(rows)} x {len(columns)} parts on ranks {ranges(layout.ranks)}"]
    cells: dict[tuple[_Bounds, _Bounds], list[str]] = {}
    for box, ranks in sorted(holders.items()):
        cells.setdefault((_bounds(box, 0), _bounds(box, 1)), []).append(ranges(ranks))
    texts = [["/".join(cells.get((row, column), ["-"])) for column in columns] for row in rows]
    widths = [max(len(line[number]) for line in texts) for number in range(len(columns))]
    border = "+" + "".join("-" * (width + 2) + "+" for width in widths)
    return [border, *(line for row in texts for line in _row(row, widths, border))]


def ranges(ranks: Sequence[int]) -> str:
    """Return ``0 2 4-7``."""
    parts: list[list[int]] = []
    for rank in ranks:
        if parts and rank == parts[-1][-1] + 1:
            parts[-1].append(rank)
        else:
            parts.append([rank])
    return " ".join(f"{p[0]}-{p[-1]}" if len(p) > 2 else " ".join(map(str, p)) for p in parts)


def _bounds(box: Region, dim: int) -> _Bounds:
    """Return where a box begins and ends in a dim; a part without rows is one of its own."""
    return box.start[dim : dim + 1] + box.stop[dim : dim + 1]


def _row(texts: Sequence[str], widths: Sequence[int], border: str) -> Iterator[str]:
    cells = (f" {text:<{width}} |" for text, width in zip(texts, widths))
    yield "|" + "".join(cells)
    yield border
