"""Decide what to copy from where. No I/O and no tensors: only numbers."""

from __future__ import annotations

import difflib
import fnmatch
import math
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import NamedTuple, Protocol

from workers.resharding.dtypes import STORAGE
from workers.resharding.errors import (
    CoverageError,
    DtypeMismatchError,
    LayoutError,
    MissingParametersError,
    NoLayoutError,
    OverlapError,
    ShapeMismatchError,
)
from workers.resharding.index import CheckpointIndex, SavedTensor
from workers.resharding.layout import Layout
from workers.resharding.region import Region, first_overlap, flat_boxes
from workers.resharding.remote.address import Location
from workers.resharding.saved import SavedParameter, SlicedCheckpoint


class Wanted(Protocol):
    """What a network says of one of its parameters."""

    @property
    def layout(self) -> Layout: ...

    @property
    def full_shape(self) -> tuple[int, ...]: ...

    @property
    def dtype(self) -> str: ...  # MindSpore's name


class CopyStep(NamedTuple):
    """One box that goes from the saved slice of a rank into the wanted box."""

    source_rank: int
    source: Region  # in the coordinates of that rank's saved slice
    target: Region  # in the coordinates of the wanted box


def plan_parameter(
    parameter: str, wanted: Region, saved: Mapping[int, Region], nearest: int = 0
) -> tuple[CopyStep, ...]:
    """Return the copies that fill ``wanted`` exactly once.

    Args:
        saved: for each source rank, the region that it holds. Ranks with equal regions are
            replicas; of them the one nearest to ``nearest`` is read, the lower one in a tie.

    Raises:
        OverlapError: two saved regions overlap inside ``wanted`` without being equal.
        CoverageError: the saved regions leave part of ``wanted`` unfilled.
    """
    if wanted.num_elements == 0:
        return ()
    reader: dict[Region, int] = {}  # the rank to read each distinct region from
    for rank in sorted(saved, key=lambda rank: (abs(rank - nearest), rank)):
        reader.setdefault(saved[rank], rank)
    hits = [
        (rank, region, common)
        for region, rank in reader.items()
        if (common := region.intersect(wanted)) is not None
    ]
    clash = first_overlap([common for _, _, common in hits])
    if clash is not None:
        (one, first, _), (other, second, _) = (hits[index] for index in clash)
        raise OverlapError(parameter, one, other, f"{first} and {second}")
    # Disjoint boxes inside ``wanted`` whose sizes add up to it must tile it.
    covered = sum(common.num_elements for _, _, common in hits)
    if covered != wanted.num_elements:
        raise CoverageError(parameter, wanted.num_elements, covered)
    return tuple(
        CopyStep(rank, common.relative_to(region), common.relative_to(wanted))
        for rank, region, common in sorted(hits, key=lambda hit: hit[0])
    )


class FileRead(NamedTuple):
    """A box of one file that goes into a box of the wanted slice."""

    path: Location
    offset: int  # in bytes, of the block
    shape: tuple[int, ...]  # of the block: a run of the file, holding a tensor or a part of it
    source: Region  # in the coordinates of the block
    target: Region  # in the coordinates of the wanted slice


@dataclass(frozen=True)
class SlicePlan:
    """How the slice of one parameter is read."""

    name: str
    dtype: str
    shape: tuple[int, ...]  # of the slice
    reads: tuple[FileRead, ...]  # they fill it exactly once

    @property
    def itemsize(self) -> int:
        return STORAGE[self.dtype].itemsize


@dataclass(frozen=True)
class LoadPlan:
    """All that one rank reads, and how to tell that a file is still the one that was planned."""

    rank: int
    slices: tuple[SlicePlan, ...]
    files: Mapping[Location, CheckpointIndex]  # of the files to read

    @cached_property
    def bytes_by_file(self) -> Mapping[Location, int]:
        """The bytes to read from each file."""
        count: Counter[Location] = Counter()
        for part in self.slices:
            for read in part.reads:
                count[read.path] += read.source.num_elements * part.itemsize
        return count

    @property
    def nbytes(self) -> int:
        """The memory that the slices take."""
        return sum(math.prod(part.shape) * part.itemsize for part in self.slices)

    @property
    def bytes_to_read(self) -> int:
        return sum(self.bytes_by_file.values())

    def __str__(self) -> str:
        lines = [f"rank {self.rank} reads {self.bytes_to_read:,} bytes"]
        lines += [f"  {count:>15,}  {path}" for path, count in self.bytes_by_file.items()]
        return "\n".join(lines)


def plan_rank(
    checkpoint: SlicedCheckpoint,
    wanted: Mapping[str, Wanted],
    rank: int,
    allow_missing: Sequence[str] = (),
) -> LoadPlan:
    """Return the reads that give a rank its slice of every wanted parameter.

    What the checkpoint holds beyond that (optimizer state, counters) is not read.

    Args:
        allow_missing: patterns (``head.*``) of parameters that the checkpoint may lack; they are
            left out of the plan.

    Raises:
        MissingParametersError: the checkpoint lacks other parameters.
        ShapeMismatchError, DtypeMismatchError: a parameter is not what the network wants.
        LayoutError: a wanted layout does not fit its parameter.
        OverlapError, CoverageError: the saved slices do not make the wanted one.
    """
    refuse_missing(checkpoint, [name for name in wanted if not matches(name, allow_missing)])
    slices = []
    for name, want in wanted.items():
        if name in checkpoint.parameters:
            boxes = wanted_boxes(checkpoint, name, want, rank)
            slices.append(plan_slice(checkpoint, name, boxes, rank))
    return make_plan(checkpoint, slices, rank)


def matches(name: str, patterns: Iterable[str]) -> bool:
    """Return whether one of some patterns (``head.*``) is for the name of a parameter."""
    return any(fnmatch.fnmatchcase(name, pattern) for pattern in patterns)


def refuse_missing(checkpoint: SlicedCheckpoint, names: Iterable[str]) -> None:
    """Refuse to go on if the checkpoint lacks one of some parameters.

    Raises:
        MissingParametersError: it names them all, and what comes near to the first.
    """
    missing = tuple(name for name in names if name not in checkpoint.parameters)
    if missing:
        similar = difflib.get_close_matches(missing[0], checkpoint.parameters)
        path = next(iter(checkpoint.files.values())).path
        raise MissingParametersError(missing, str(path), tuple(similar))


def make_plan(
    checkpoint: SlicedCheckpoint, slices: Sequence[SlicePlan], rank: int
) -> LoadPlan:
    """Return the plan of some slices, with the files that they are read from."""
    paths = {read.path for part in slices for read in part.reads}
    files = {index.path: index for index in checkpoint.files.values() if index.path in paths}
    return LoadPlan(rank, tuple(slices), files)


def wanted_boxes(
    checkpoint: SlicedCheckpoint, name: str, want: Wanted, rank: int
) -> tuple[Region, ...]:
    """Return what a rank wants of a parameter, checked to be the parameter that was saved."""
    saved = checkpoint.parameters[name]
    _check_same_tensor(checkpoint, name, want, saved)
    try:
        return want.layout.boxes(rank, want.full_shape)
    except LayoutError as error:
        raise error.of(name) from error


def require_layout(checkpoint: SlicedCheckpoint, name: str) -> None:
    """Refuse a parameter of which the files hold slices, and the strategy does not say which.

    Raises:
        NoLayoutError: it names what in the strategy comes near to it.
    """
    if name in checkpoint.unnamed_slices:
        first, *_, last = checkpoint.parameters[name].holders
        raise no_layout(checkpoint, name, f"other values than {checkpoint.files[last].path}")


def no_layout(checkpoint: SlicedCheckpoint, name: str, found: str) -> NoLayoutError:
    """Return the error that a strategy should name a parameter and does not."""
    file = checkpoint.files[checkpoint.parameters[name].holders[0]]
    similar = difflib.get_close_matches(name, checkpoint.named - checkpoint.parameters.keys())
    return NoLayoutError(name, str(file.path), found, tuple(similar))


def plan_slice(
    checkpoint: SlicedCheckpoint, name: str, boxes: Sequence[Region], rank: int
) -> SlicePlan:
    """Return the reads of one slice: of one box, or of several whose rows follow each other."""
    saved = checkpoint.parameters[name]
    reads: list[FileRead] = []
    row = 0
    for box in boxes:
        for step in _plan_box(name, box, saved, rank):
            reads += _file_reads(checkpoint.files[step.source_rank], name, step, row)
        row += box.shape[0] if len(boxes) > 1 else 0
    shape = boxes[0].shape if len(boxes) == 1 else (row, *boxes[0].shape[1:])
    return SlicePlan(name, saved.dtype, shape, tuple(reads))


def _plan_box(
    name: str, box: Region, saved: SavedParameter, rank: int
) -> Iterable[CopyStep]:
    layout, fields = saved.layout, saved.layout.field_size
    if box.num_elements == 0:
        return ()
    if fields < 2:
        sources = layout.sources(box, saved.full_shape, rank, saved.only)
        steps = tuple(CopyStep(*source) for source in sources)
        covered = sum(step.target.num_elements for step in steps)
        if covered != box.num_elements:
            raise CoverageError(name, box.num_elements, covered)
        return steps
    # A rank has a box of each field; they are numbered as if each came from a rank of its own.
    regions = {
        holder * fields + field: region
        for holder, boxes in saved.boxes.items()
        for field, region in enumerate(boxes)
    }
    return (
        CopyStep(
            step.source_rank // fields,
            step.source.shifted(step.source_rank % fields * regions[step.source_rank].shape[0]),
            step.target,
        )
        for step in plan_parameter(name, box, regions, rank * fields)
    )


def _check_same_tensor(
    checkpoint: SlicedCheckpoint, name: str, want: Wanted, saved: SavedParameter
) -> None:
    require_layout(checkpoint, name)
    file = checkpoint.files[saved.holders[0]]
    if saved.dtype != want.dtype or saved.dtype not in STORAGE:
        raise DtypeMismatchError(name, want.dtype, saved.dtype, str(file.path))
    if saved.full_shape != tuple(want.full_shape):
        if checkpoint.named and not saved.in_strategy:
            shapes = f"shape {list(saved.full_shape)}, not {list(want.full_shape)}"
            raise no_layout(checkpoint, name, shapes)
        raise ShapeMismatchError(
            name,
            tuple(want.full_shape),
            saved.full_shape,
            file.tensors[name].dims,
            str(file.path),
            str(saved.layout),
        )


def _file_reads(
    index: CheckpointIndex, name: str, step: CopyStep, row: int
) -> Iterator[FileRead]:
    """Divide a copy among the blocks in which the file of its source rank holds the slice."""
    tensor = index.tensors[name]
    goal = step.target.shifted(row) if row else step.target
    if len(tensor.chunks) == 1:
        yield FileRead(index.path, tensor.chunks[0].offset, tensor.dims, step.source, goal)
        return
    for offset, block in _blocks(tensor):
        common = block.intersect(step.source)
        if common is not None:
            in_step = common.relative_to(step.source)
            start = tuple(map(int.__add__, in_step.start, goal.start))
            target = Region(start, tuple(map(int.__add__, start, common.shape)))
            yield FileRead(index.path, offset, block.shape, common.relative_to(block), target)


def _blocks(tensor: SavedTensor) -> Iterator[tuple[int, Region]]:
    """Yield boxes of a saved slice that are runs of the file, each with its offset in bytes."""
    itemsize, first = STORAGE[tensor.dtype].itemsize, 0
    for chunk in tensor.chunks:
        offset, last = chunk.offset, first + chunk.nbytes // itemsize
        for box in flat_boxes(tensor.dims, first, last):
            yield offset, box
            offset += box.num_elements * itemsize
        first = last
