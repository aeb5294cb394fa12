"""Decide what to copy from where. No I/O and no tensors: only numbers."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Hashable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import NamedTuple

from workers.resharding.copies import CopyStep, plan_parameter
from workers.resharding.dtypes import STORAGE
from workers.resharding.errors import CoverageError
from workers.resharding.index import CheckpointIndex, SavedTensor
from workers.resharding.region import Region, flat_boxes
from workers.resharding.remote.address import Location
from workers.resharding.saved import SavedParameter, SlicedCheckpoint
from workers.resharding.wanted import (
    Wanted,
    check_same_tensor,
    matches,
    refuse_missing,
    wanted_boxes,
)

_MOST_KINDS = 256  # of parameters, kept while planning; where there are more, few are alike


class _Copies(NamedTuple):
    """How a slice is filled, whatever the name of its parameter."""

    shape: tuple[int, ...]  # of the slice
    steps: tuple[CopyStep, ...]  # their targets are in the coordinates of the slice


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
    known: dict[Hashable, _Copies] = {}  # most parameters of a network are like others
    for name, want in wanted.items():
        if name in checkpoint.parameters:
            saved = checkpoint.parameters[name]
            check_same_tensor(checkpoint, name, want)
            alike = want.layout, saved.layout, saved.full_shape, saved.only
            copies = known.get(alike)
            if copies is None:
                if len(known) == _MOST_KINDS:
                    known.clear()
                boxes = wanted_boxes(name, want, rank)
                copies = known[alike] = _plan_copies(name, boxes, saved, rank)
            slices.append(_plan_reads(checkpoint, name, copies))
    return make_plan(checkpoint, slices, rank)


def make_plan(
    checkpoint: SlicedCheckpoint, slices: Sequence[SlicePlan], rank: int
) -> LoadPlan:
    """Return the plan of some slices, with the files that they are read from."""
    paths = {read.path for part in slices for read in part.reads}
    files = {index.path: index for index in checkpoint.files.values() if index.path in paths}
    return LoadPlan(rank, tuple(slices), files)


def plan_slice(
    checkpoint: SlicedCheckpoint, name: str, boxes: Sequence[Region], rank: int
) -> SlicePlan:
    """Return the reads of one slice: of one box, or of several whose rows follow each other."""
    copies = _plan_copies(name, boxes, checkpoint.parameters[name], rank)
    return _plan_reads(checkpoint, name, copies)


def _plan_copies(
    name: str, boxes: Sequence[Region], saved: SavedParameter, rank: int
) -> _Copies:
    if len(boxes) == 1:
        return _Copies(boxes[0].shape, tuple(_plan_box(name, boxes[0], saved, rank)))
    steps: list[CopyStep] = []
    row = 0
    for box in boxes:
        for step in _plan_box(name, box, saved, rank):
            steps.append(step._replace(target=step.target.shifted(row)))
        row += box.shape[0]
    return _Copies((row, *boxes[0].shape[1:]), tuple(steps))


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


def _plan_reads(checkpoint: SlicedCheckpoint, name: str, copies: _Copies) -> SlicePlan:
    reads: list[FileRead] = []
    for step in copies.steps:
        rank, source, target = step
        index = checkpoint.files[rank]
        tensor = index.tensors[name]
        if len(tensor.chunks) == 1:
            offset = tensor.chunks[0].offset
            reads.append(FileRead(index.path, offset, tensor.dims, source, target))
        else:
            reads += _block_reads(index.path, tensor, step)
    dtype = checkpoint.parameters[name].dtype
    return SlicePlan(name, dtype, copies.shape, tuple(reads))


def _block_reads(path: Location, tensor: SavedTensor, step: CopyStep) -> Iterator[FileRead]:
    """Divide a copy among the blocks in which the file of its source rank holds the slice."""
    for offset, block in _blocks(tensor):
        common = block.intersect(step.source)
        if common is not None:
            target = common.relative_to(step.source).placed_in(step.target)
            yield FileRead(path, offset, block.shape, common.relative_to(block), target)


def _blocks(tensor: SavedTensor) -> Iterator[tuple[int, Region]]:
    """Yield boxes of a saved slice that are runs of the file, each with its offset in bytes."""
    itemsize, first = STORAGE[tensor.dtype].itemsize, 0
    for chunk in tensor.chunks:
        offset, last = chunk.offset, first + chunk.nbytes // itemsize
        for box in flat_boxes(tensor.dims, first, last):
            yield offset, box
            offset += box.num_elements * itemsize
        first = last
