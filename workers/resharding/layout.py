"""Decide which box of a parameter each rank stores. Nothing here opens a file.

MindSpore counts the axes of the device matrix from the right, -1 for a dim that is not split;
these numbers are known here and nowhere else. ``Layout.axes`` counts from the left.
"""

from __future__ import annotations

import itertools
import math
from bisect import bisect_left, bisect_right
from collections import Counter, defaultdict
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property, lru_cache
from operator import floordiv, mod
from types import MappingProxyType
from typing import Any

from workers.resharding.errors import LayoutError
from workers.resharding.grid import Cell, Grid, make_grid
from workers.resharding.region import Region

_MOST_RANKS, _MOST_DIMS = 1 << 17, 64  # of a stage, and of a matrix; more than that is damage
_MOST_FIELDS = 1 << 16
_MOST_FOLDED = 12  # dims; the number of ways to fold them grows fast


@dataclass(frozen=True)
class Layout:
    """How the ranks of one pipeline stage, or of several, divide a parameter."""

    device_matrix: tuple[int, ...]  # the devices of ONE stage, major to minor
    axes: tuple[tuple[int, ...], ...]  # per dim, the axes that split it, major to minor
    optimizer_shard: int = 0  # 0: none, -1: over all replicas, k: over groups of k replicas
    stages: tuple[int, ...] = (0,)  # the pipeline stages that hold the parameter
    field_size: int = 0  # interleaved blocks of an embedding; 0: none
    split_sizes: tuple[int, ...] = ()  # rows of each slice when they differ; (): all alike
    # before ``folded``: the full shape, in as many dims; no part of what the layout is
    expanded_shape: tuple[int, ...] = field(default=(), compare=False, repr=False)

    def __post_init__(self) -> None:
        if max(len(self.device_matrix), len(self.axes)) > _MOST_DIMS:
            raise LayoutError("it has too many dims", f"{len(self.device_matrix)} axes")
        if min(self.device_matrix, default=1) < 1 or self.stage_size > _MOST_RANKS:
            raise LayoutError("the device matrix is impossible", str(self))
        if self.field_size > _MOST_FIELDS:
            raise LayoutError("it has too many fields", str(self))
        used = [axis for axes in self.axes for axis in axes]
        if used and not 0 <= min(used) <= max(used) < len(self.device_matrix):
            raise LayoutError("the device matrix has no such axis", str(self))
        if len(set(used)) < len(used):
            self._refuse_axis_used_twice(used)

    def _refuse_axis_used_twice(self, used: Sequence[int]) -> None:
        for axis, times in Counter(used).items():
            if times > 1 and self.device_matrix[axis] > 1:
                raise LayoutError(f"axis {axis} splits the parameter more than once", str(self))

    def __hash__(self) -> int:
        return self._hash

    @cached_property
    def _hash(self) -> int:
        """The hash, made once: a plan looks layouts up several times for each parameter."""
        stored = (self.device_matrix, self.axes, self.optimizer_shard)
        return hash((*stored, self.stages, self.field_size, self.split_sizes))

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
        stages = (range(stage * size, (stage + 1) * size) for stage in sorted(self.stages))
        return tuple(itertools.chain.from_iterable(stages))

    def holds(self, rank: int) -> bool:
        """Tell whether a global rank stores a part of the parameter."""
        return rank // self.stage_size in self.stages

    @property
    def split_counts(self) -> tuple[int, ...]:
        """Into how many parts the axes cut each dim, optimizer shards not counted."""
        return tuple(math.prod(self.device_matrix[axis] for axis in dim) for dim in self.axes)

    @property
    def part_count(self) -> int:
        """Into how many parts the parameter is cut, by axes and by the optimizer."""
        return math.prod(_grid(self).counts)

    def slice_shape(self, full_shape: Sequence[int]) -> tuple[int, ...]:
        """Return the shape of a slice before the optimizer cuts it: MindSpore's item 2."""
        return _divide(self, full_shape, self.split_counts)

    def full_shape(self, stored_slice_shape: Sequence[int]) -> tuple[int, ...]:
        """Return the shape of the parameter of which a stored slice has this shape."""
        counts = _grid(self).counts
        if len(stored_slice_shape) != len(counts):
            raise LayoutError(_wrong_ndim(self, stored_slice_shape), str(self))
        shape = tuple(size * parts for size, parts in zip(stored_slice_shape, counts))
        return (sum(self.split_sizes), *shape[1:]) if self.split_sizes else shape

    def boxes(self, rank: int, full_shape: Sequence[int]) -> tuple[Region, ...]:
        """Return what a global rank stores: the rows of each box follow those of the one before.

        It is one box, but for a parameter with fields: of each field the rank stores a box.

        Raises:
            LayoutError: the rank stores nothing of the parameter, or the shape cannot be cut
                into the parts of the layout.
        """
        self._require_holders((rank,))
        grid = _grid(self)
        edges = self._edges(grid.counts, full_shape)
        return self._stored(grid.cells[rank % self.stage_size], edges, full_shape)

    def boxes_by_rank(
        self, ranks: Collection[int], full_shape: Sequence[int]
    ) -> Mapping[int, tuple[Region, ...]]:
        """Return what each of some global ranks stores.

        Raises:
            LayoutError: as for ``boxes``.
        """
        self._require_holders(ranks)
        grid, size = _grid(self), self.stage_size
        edges = self._edges(grid.counts, full_shape)
        cells = {rank: grid.cells[rank % size] for rank in ranks}
        stored = {cell: self._stored(cell, edges, full_shape) for cell in set(cells.values())}
        return {rank: stored[cell] for rank, cell in cells.items()}

    def _require_holders(self, ranks: Collection[int]) -> None:
        size = self.stage_size
        for rank in ranks:
            if rank // size not in self.stages:
                raise LayoutError(f"rank {rank} stores nothing of this parameter", str(self))

    def _stored(
        self, cell: Cell, edges: Sequence[Sequence[int]], full_shape: Sequence[int]
    ) -> tuple[Region, ...]:
        box = _box(cell, edges)
        if self.field_size < 2:
            return (box,)
        rows = full_shape[0] // self.field_size
        return tuple(box.shifted(field * rows) for field in range(self.field_size))

    def region(self, rank: int, full_shape: Sequence[int]) -> Region:
        """Return the one box that a global rank stores, optimizer shards included.

        Raises:
            LayoutError: as for ``boxes``, or there are several.
        """
        first, *more = self.boxes(rank, full_shape)
        if more:
            raise LayoutError("field slices are several boxes, not one", str(self))
        return first

    def stored_shape(self, rank: int, full_shape: Sequence[int]) -> tuple[int, ...]:
        """Return the shape of the slice that a global rank stores."""
        boxes = self.boxes(rank, full_shape)
        first = boxes[0].shape
        return (first[0] * len(boxes), *first[1:]) if len(boxes) > 1 else first

    def sources(
        self,
        wanted: Region,
        full_shape: Sequence[int],
        nearest: int,
        among: Collection[int] | None = None,
    ) -> Iterator[tuple[int, Region, Region]]:
        """Yield the ranks to read parts of ``wanted`` from; the parts are disjoint.

        Of ranks that store the same, it is the one nearest to ``nearest``, the lower in a tie.
        With each rank come the part in the coordinates of its slice, and in those of ``wanted``.
        What this costs depends on the parts that are touched, not on the number of ranks.

        Args:
            among: the ranks that may be read; None for all.
        """
        counts, holders = _holders(self)
        edges = self._edges(counts, full_shape)
        for parts in itertools.product(*map(_touched, edges, wanted.start, wanted.stop)):
            cell, held_from, held_to, into_from, into_to = zip(*parts) if parts else ((),) * 5
            ranks = holders.get(cell, ())
            if among is not None:
                ranks = tuple(rank for rank in ranks if rank in among)
            if ranks:
                held, into = Region(held_from, held_to), Region(into_from, into_to)
                yield _nearest(ranks, nearest), held, into

    def _edges(
        self, counts: tuple[int, ...], full_shape: Sequence[int]
    ) -> list[Sequence[int]]:
        """Return for each dim where its parts begin, and where the last one ends.

        Args:
            counts: parts per dim, of the grid.
        """
        sizes = _divide(self, full_shape, (1, *counts[1:]) if self.split_sizes else counts)
        if self.split_sizes and sum(self.split_sizes) != sizes[0]:
            reason = f"the parts have {sum(self.split_sizes)} rows, the tensor has {sizes[0]}"
            raise LayoutError(reason, str(self))
        if self.field_size and sizes[0] % self.field_size:
            fields = f"{self.field_size} fields"
            reason = f"dim 0 of shape {list(full_shape)} cannot be cut into {fields}"
            raise LayoutError(reason, str(self))
        if self.field_size:
            sizes = (sizes[0] // self.field_size, *sizes[1:])
        edges: list[Sequence[int]] = [
            range(0, size * parts + 1, size) if size else (0,) * (parts + 1)
            for size, parts in zip(sizes, counts)
        ]
        if self.split_sizes:
            edges[0] = tuple(itertools.accumulate(self.split_sizes, initial=0))
        return edges

    def regions(self, full_shape: Sequence[int]) -> Mapping[int, Region]:
        """Return the region of every rank that stores a part."""
        return _regions(self, tuple(full_shape))

    def folded(self, dims: Sequence[int], whole: bool = False) -> Layout:
        """Return the layout of a tensor with fewer dims than this layout has.

        MindSpore's JSON strategy files give a dim that several axes split as several dims, one
        for each of those axes. Neighbours are folded together again, if there is only one way
        that gives the tensor its shape.

        Args:
            dims: the shape of a slice as it is stored; or of the tensor, if ``whole``.
        """
        ways = _foldings(self.axes, len(dims)) if len(self.axes) <= _MOST_FOLDED else []
        fitting = []
        for counts in ways:
            stops = list(itertools.accumulate(counts))
            groups = [slice(stop - count, stop) for stop, count in zip(stops, counts)]
            axes = tuple(tuple(itertools.chain(*self.axes[group])) for group in groups)
            layout = replace(self, axes=axes, expanded_shape=())
            joined = [math.prod(self.expanded_shape[group]) for group in groups]
            if not self.expanded_shape or joined == [*(dims if whole else layout.full_shape(dims))]:
                fitting.append(layout)
        if len(fitting) != 1:
            raise LayoutError(
                f"it is for {len(self.axes)} dims, the tensor has {len(dims)}, and there are"
                f" {len(fitting)} ways to fold them; if the strategy is JSON, use the .ckpt file",
                str(self),
            )
        return fitting[0]

    def __str__(self) -> str:
        parts: dict[str, object] = {
            "optimizer shards": self.optimizer_shard,
            "fields": self.field_size,
            "rows": list(self.split_sizes),
        }
        rest = "".join(f", {name} {value}" for name, value in parts.items() if value)
        return (
            f"device matrix {list(self.device_matrix)}, tensor map {self.nested_tensor_map}{rest}"
        )


@lru_cache(maxsize=4096)
def _grid(layout: Layout) -> Grid:
    try:
        grid = make_grid(layout.device_matrix, layout.axes, layout.optimizer_shard)
    except ValueError as error:
        raise LayoutError(str(error), str(layout)) from error
    fields, sizes = layout.field_size, layout.split_sizes
    if not (fields or sizes):
        return grid
    if fields < 0 or not grid.counts or layout.optimizer_shard or (fields and sizes):
        reason = "fields, slices of unequal size and optimizer shards exclude each other"
        raise LayoutError(reason, str(layout))
    if sizes and (len(sizes) != grid.counts[0] or min(sizes) < 0):
        reason = f"it cuts dim 0 into {grid.counts[0]} parts, not into {list(sizes)}"
        raise LayoutError(reason, str(layout))
    return grid


@lru_cache(maxsize=4096)
def _holders(layout: Layout) -> tuple[tuple[int, ...], Mapping[Cell, tuple[int, ...]]]:
    """Return the parts per dim, and the ranks that store each cell, in order: they are replicas."""
    counts, cells = _grid(layout).counts, _grid(layout).cells
    found: dict[Cell, list[int]] = defaultdict(list)
    for rank in layout.ranks:
        found[cells[rank % layout.stage_size]].append(rank)
    return counts, {cell: tuple(ranks) for cell, ranks in found.items()}


def _box(cell: Cell, edges: Sequence[Sequence[int]]) -> Region:
    return Region(
        tuple(edge[part] for edge, part in zip(edges, cell)),
        tuple(edge[part + 1] for edge, part in zip(edges, cell)),
    )


def _touched(edge: Sequence[int], first: int, last: int) -> list[tuple[int, ...]]:
    """Return the parts of a dim that hold some of ``first`` .. ``last``.

    With each part come the bounds of what it holds, counted from its own begin and from ``first``.
    """
    if len(edge) == 2 and first < last <= edge[1]:  # most dims are in one part
        return [(0, first, last, 0, last - first)]
    touched: list[tuple[int, ...]] = []
    for part in range(bisect_right(edge, first) - 1, bisect_left(edge, last)):
        begin, end = edge[part], edge[part + 1]
        low = first if first > begin else begin
        high = last if last < end else end
        if low < high:  # a part may have no rows
            touched.append((part, low - begin, high - begin, low - first, high - first))
    return touched


def _nearest(ranks: Sequence[int], to: int) -> int:
    """Return the one of some ranks, in order, that is nearest; the lower in a tie."""
    place = bisect_left(ranks, to)
    if place == len(ranks):
        return ranks[-1]
    if place == 0:
        return ranks[0]
    below, above = ranks[place - 1], ranks[place]
    return below if to - below <= above - to else above


@lru_cache(maxsize=4096)
def _regions(layout: Layout, full_shape: tuple[int, ...]) -> Mapping[int, Region]:
    return MappingProxyType({rank: layout.region(rank, full_shape) for rank in layout.ranks})


def _divide(layout: Layout, shape: Sequence[int], counts: tuple[int, ...]) -> tuple[int, ...]:
    if len(shape) != len(counts):
        raise LayoutError(_wrong_ndim(layout, shape), str(layout))
    if any(map(mod, shape, counts)):
        dim = next(dim for dim, (size, parts) in enumerate(zip(shape, counts)) if size % parts)
        reason = f"dim {dim} of shape {list(shape)} cannot be cut into {counts[dim]} equal parts"
        raise LayoutError(reason, str(layout))
    return tuple(map(floordiv, shape, counts))


def _wrong_ndim(layout: Layout, shape: Sequence[int]) -> str:
    return f"it is for {len(layout.axes)} dims, but the tensor has shape {list(shape)}"


def _foldings(axes: tuple[tuple[int, ...], ...], ndim: int) -> list[tuple[int, ...]]:
    """Return the ways to join neighbouring dims, all of them split, until ``ndim`` are left.

    A way tells how many dims become one, for each that is left.
    """
    if not axes or ndim == 0:
        return [()] if not axes and ndim == 0 else []
    ways = []
    for count in range(1, len(axes) - ndim + 2):
        if count > 1 and not all(axes[:count]):
            break  # a dim that is whole was never part of a longer one
        ways += [(count, *rest) for rest in _foldings(axes[count:], ndim - 1)]
    return ways
