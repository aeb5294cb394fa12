"""Decide which box of a parameter each rank stores. Nothing here opens a file.

MindSpore counts the axes of the device matrix from the right, -1 for a dim that is not split;
these numbers are known here and nowhere else. ``Layout.axes`` counts from the left.
"""

from __future__ import annotations

import itertools
import math
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import lru_cache
from types import MappingProxyType
from typing import Any

from workers.resharding.errors import LayoutError
from workers.resharding.region import Region

_MOST_RANKS = 1 << 20  # of a stage; more than that is damage


@dataclass(frozen=True)
class Layout:
    """How the ranks of one pipeline stage, or of several, divide a parameter."""

    device_matrix: tuple[int, ...]  # the devices of ONE stage, major to minor
    axes: tuple[tuple[int, ...], ...]  # per dim, the axes that split it, major to minor
    optimizer_shard: int = 0  # 0: none, -1: over all replicas, k: over groups of k replicas
    stages: tuple[int, ...] = (0,)  # the pipeline stages that hold the parameter
    field_size: int = 0  # interleaved blocks of an embedding; 0: none
    split_sizes: tuple[int, ...] = ()  # rows of each slice when they differ; (): all alike

    def __post_init__(self) -> None:
        if any(size < 1 for size in self.device_matrix) or self.stage_size > _MOST_RANKS:
            raise LayoutError("the device matrix is impossible", str(self))
        used = Counter(axis for axes in self.axes for axis in axes)
        for axis, times in used.items():
            if not 0 <= axis < len(self.device_matrix):
                raise LayoutError("the device matrix has no such axis", str(self))
            if times > 1 and self.device_matrix[axis] > 1:
                raise LayoutError(f"axis {axis} splits the parameter more than once", str(self))

    @classmethod
    def from_tensor_map(
        cls,
        device_matrix: Sequence[int],
        tensor_map: Sequence[int | Sequence[int]],
        **rest: Any,
    ) -> Layout:
        """Make a layout from MindSpore's numbers.

        Args:
            tensor_map: for each dim an axis counted from the right, or a list of them, major to
                minor; -1 splits nothing.
            rest: further fields of the layout.
        """
        last = len(device_matrix) - 1
        per_dim = ((entry,) if isinstance(entry, int) else tuple(entry) for entry in tensor_map)
        axes = tuple(tuple(last - number for number in dim if number != -1) for dim in per_dim)
        return cls(tuple(device_matrix), axes, **rest)

    @property
    def tensor_map(self) -> tuple[int, ...]:
        """MindSpore's numbers; a dim split over several axes gives several of them."""
        nested = (dim if isinstance(dim, list) else [dim] for dim in self.nested_tensor_map)
        return tuple(number for dim in nested for number in dim)

    @property
    def nested_tensor_map(self) -> list[int | list[int]]:
        """MindSpore's numbers, one entry for each dim; a list if any dim has several axes."""
        last = len(self.device_matrix) - 1
        dims = [[last - axis for axis in dim] or [-1] for dim in self.axes]
        if any(len(dim) > 1 for dim in dims):
            return [*dims]
        return [number for dim in dims for number in dim]

    @property
    def stage_size(self) -> int:
        """The number of ranks of one pipeline stage."""
        return math.prod(self.device_matrix)

    @property
    def ranks(self) -> tuple[int, ...]:
        """The global ranks that store a part of the parameter, in order."""
        size = self.stage_size
        stages = sorted(self.stages)
        return tuple(stage * size + local for stage in stages for local in range(size))

    @property
    def split_counts(self) -> tuple[int, ...]:
        """Into how many parts the axes cut each dim, optimizer shards not counted."""
        return tuple(math.prod(self.device_matrix[axis] for axis in dim) for dim in self.axes)

    def slice_shape(self, full_shape: Sequence[int]) -> tuple[int, ...]:
        """Return the shape of a slice before the optimizer cuts it: MindSpore's item 2."""
        return _divide(self, full_shape, self.split_counts)

    def full_shape(self, stored_slice_shape: Sequence[int]) -> tuple[int, ...]:
        """Return the shape of the parameter whose stored slices, all alike, have this shape."""
        counts = _grid(self).counts
        if len(stored_slice_shape) != len(counts):
            raise LayoutError(_wrong_ndim(self, stored_slice_shape), str(self))
        return tuple(size * parts for size, parts in zip(stored_slice_shape, counts))

    def region(self, rank: int, full_shape: Sequence[int]) -> Region:
        """Return what a global rank stores, optimizer shards included.

        Raises:
            LayoutError: the rank stores nothing of the parameter, or the shape cannot be cut
                into equal parts.
        """
        stage, local = divmod(rank, self.stage_size)
        if stage not in self.stages:
            raise LayoutError(f"rank {rank} stores nothing of this parameter", str(self))
        grid = _grid(self)
        size = _divide(self, full_shape, grid.counts)
        start = tuple(map(int.__mul__, grid.cells[local], size))
        return Region(start, tuple(map(int.__add__, start, size)))

    def regions(self, full_shape: Sequence[int]) -> Mapping[int, Region]:
        """Return the region of every rank that stores a part."""
        return _regions(self, tuple(full_shape))

    def folded(self, ndim: int) -> Layout:
        """Return the layout of a tensor with fewer dims than this layout has.

        MindSpore's JSON strategy files give a dim that several axes split as several dims, one
        for each of those axes. Neighbours are folded together again, if there is only one way.
        """
        ways = list(_foldings(self.axes, ndim))
        if len(ways) != 1:
            raise LayoutError(
                f"it is for {len(self.axes)} dims, the tensor has {ndim}, and there are"
                f" {len(ways)} ways to fold them; if the strategy is JSON, use the .ckpt file",
                str(self),
            )
        return replace(self, axes=ways[0])

    def __str__(self) -> str:
        shards = f", optimizer shards {self.optimizer_shard}" if self.optimizer_shard else ""
        return (
            f"device matrix {list(self.device_matrix)}, tensor map {self.nested_tensor_map}{shards}"
        )


@dataclass(frozen=True)
class _Grid:
    """The parameter as a grid of equal parts, and the part that each rank of a stage stores."""

    counts: tuple[int, ...]  # parts per dim; optimizer shards are the minor split of dim 0
    cells: tuple[tuple[int, ...], ...]  # for each local rank, the position of its part


@lru_cache(maxsize=4096)
def _grid(layout: Layout) -> _Grid:
    if layout.field_size or layout.split_sizes:
        raise LayoutError("field slices and slices of unequal size are not supported", str(layout))
    counts = layout.split_counts
    positions = itertools.product(*map(range, layout.device_matrix))
    cells = [tuple(_part(layout, dim, position) for dim in layout.axes) for position in positions]
    if layout.optimizer_shard == 0:
        return _Grid(counts, tuple(cells))
    replicas = layout.stage_size // math.prod(counts)
    shards = replicas if layout.optimizer_shard == -1 else layout.optimizer_shard
    if not counts or shards < 1 or replicas % shards:
        raise LayoutError(f"{replicas} replicas cannot be cut into these shards", str(layout))
    seen: Counter[tuple[int, ...]] = Counter()  # replicas so far, in the order of ranks
    for local, cell in enumerate(cells):
        cells[local] = (cell[0] * shards + seen[cell] % shards, *cell[1:])
        seen[cell] += 1
    return _Grid((counts[0] * shards, *counts[1:]), tuple(cells))


def _part(layout: Layout, dim: tuple[int, ...], position: tuple[int, ...]) -> int:
    """Return the index of the part of one dim that the device at ``position`` stores."""
    index = 0
    for axis in dim:
        index = index * layout.device_matrix[axis] + position[axis]
    return index


@lru_cache(maxsize=4096)
def _regions(layout: Layout, full_shape: tuple[int, ...]) -> Mapping[int, Region]:
    return MappingProxyType({rank: layout.region(rank, full_shape) for rank in layout.ranks})


def _divide(layout: Layout, shape: Sequence[int], counts: tuple[int, ...]) -> tuple[int, ...]:
    if len(shape) != len(counts):
        raise LayoutError(_wrong_ndim(layout, shape), str(layout))
    for dim, (size, parts) in enumerate(zip(shape, counts)):
        if size % parts:
            raise LayoutError(
                f"dim {dim} of shape {list(shape)} cannot be cut into {parts} equal parts",
                str(layout),
            )
    return tuple(map(int.__floordiv__, shape, counts))


def _wrong_ndim(layout: Layout, shape: Sequence[int]) -> str:
    return f"it is for {len(layout.axes)} dims, but the tensor has shape {list(shape)}"


def _foldings(
    axes: tuple[tuple[int, ...], ...], ndim: int
) -> list[tuple[tuple[int, ...], ...]]:
    """Return the ways to join neighbouring dims, all of them split, until ``ndim`` are left."""
    if not axes or ndim == 0:
        return [()] if not axes and ndim == 0 else []
    ways = []
    for count in range(1, len(axes) - ndim + 2):
        if count > 1 and not all(axes[:count]):
            break  # a dim that is whole was never part of a longer one
        joined = tuple(itertools.chain.from_iterable(axes[:count]))
        ways += [(joined, *rest) for rest in _foldings(axes[count:], ndim - 1)]
    return ways
