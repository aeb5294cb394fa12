"""Decide which cell of a grid each rank of a pipeline stage holds. Knows no tensor shapes."""

from __future__ import annotations

import itertools
import math
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

Cell = tuple[int, ...]  # for each dim, the index of a part


@dataclass(frozen=True)
class Grid:
    """A parameter as a grid of parts, and the part that each rank of a stage stores."""

    counts: tuple[int, ...]  # parts per dim; optimizer shards are the minor split of dim 0
    cells: tuple[Cell, ...]  # cells[local rank]


def make_grid(
    device_matrix: Sequence[int], axes: Sequence[Sequence[int]], optimizer_shard: int
) -> Grid:
    """Return the grid of a layout.

    Args:
        axes: for each dim, the axes of the device matrix that split it, major to minor.
        optimizer_shard: 0: none, -1: over all replicas, k: over groups of k replicas.

    Raises:
        ValueError: the replicas cannot be cut into these shards.
    """
    counts = tuple(math.prod(device_matrix[axis] for axis in dim) for dim in axes)
    positions = itertools.product(*map(range, device_matrix))
    cells = [tuple(_part(device_matrix, dim, position) for dim in axes) for position in positions]
    if optimizer_shard == 0:
        return Grid(counts, tuple(cells))
    replicas = len(cells) // math.prod(counts)
    shards = replicas if optimizer_shard == -1 else optimizer_shard
    if not counts or shards < 1 or replicas % shards:
        raise ValueError(f"{replicas} replicas cannot be cut into these shards")
    seen: Counter[Cell] = Counter()  # replicas so far, in the order of ranks
    for local, cell in enumerate(cells):
        cells[local] = (cell[0] * shards + seen[cell] % shards, *cell[1:])
        seen[cell] += 1
    return Grid((counts[0] * shards, *counts[1:]), tuple(cells))


def _part(device_matrix: Sequence[int], dim: Sequence[int], position: Sequence[int]) -> int:
    """Return the index of the part of one dim that the device at ``position`` stores."""
    index = 0
    for axis in dim:
        index = index * device_matrix[axis] + position[axis]
    return index
