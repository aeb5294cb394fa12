"""Decide which files a checkpoint is converted to, and divide the work. No I/O, no tensors."""

from __future__ import annotations

import hashlib
import math
from collections.abc import Container, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

from workers.resharding.checkpoint_file import SAFETENSORS, lay_out
from workers.resharding.dtypes import STORAGE
from workers.resharding.errors import LayoutError
from workers.resharding.index import NewFile
from workers.resharding.layout import Layout
from workers.resharding.region import Region, row_blocks
from workers.resharding.saved import SlicedCheckpoint
from workers.resharding.wanted import refuse_missing, require_layout

TASK_NBYTES = 64 << 20  # what one process holds at a time
_TASK_PIECES = 256
PART_NBYTES = 3 << 30  # of a file of whole tensors, as unified_safetensors divides them


class Piece(NamedTuple):
    """A run of a slice that is to be written."""

    output: int  # index of the file
    name: str
    box: Region  # of the whole tensor
    start: int  # in bytes, in the slice
    nbytes: int


@dataclass(frozen=True)
class Output:
    """A file that is to be written."""

    path: Path  # inside the target folder
    rank: int  # that will read it; 0 for whole tensors
    slices: Mapping[str, tuple[Region, ...]]  # the boxes of each parameter
    new: NewFile


@dataclass(frozen=True)
class Conversion:
    """All that is to be done."""

    checkpoint: SlicedCheckpoint
    outputs: tuple[Output, ...]
    tasks: tuple[tuple[Piece, ...], ...]  # each reads and writes about TASK_NBYTES

    @property
    def nbytes(self) -> int:
        return sum(output.new.nbytes for output in self.outputs)

    @property
    def parameter_map(self) -> Mapping[str, str] | None:
        """The file of each tensor, if these are files that share whole ones."""
        paths = [output.path for output in self.outputs]
        if any(path.suffix != SAFETENSORS or len(path.parts) > 1 for path in paths):
            return None
        return {name: output.path.name for output in self.outputs for name in output.slices}

    @property
    def digest(self) -> str:
        """A number that changes with anything that the files depend on."""
        sources = [(str(i.path), tuple(i.identity)) for i in self.checkpoint.files.values()]
        goals = [(str(o.path), o.new.headers, sorted(o.slices.items())) for o in self.outputs]
        return hashlib.sha256(repr((sources, goals, len(self.tasks))).encode()).hexdigest()


def plan_conversion(
    checkpoint: SlicedCheckpoint,
    names: Sequence[str],
    targets: Mapping[str, Layout] | None,
    file_name: str,
    unneeded: Container[str] = (),
) -> Conversion:
    """Return how to convert a checkpoint.

    Args:
        names: the parameters to convert.
        targets: how ranks will hold each; what it does not name is whole on every rank. None for
            files of whole tensors.
        file_name: of the files, or the first of them; its suffix says the format.
        unneeded: parameters of ``targets`` that may be absent; they count for the number of ranks.

    Raises:
        MissingParametersError: ``targets`` names parameters that are not there.
        NoLayoutError: the strategy does not name a parameter that was saved as slices.
        LayoutError: a target layout does not fit its parameter.
        ValueError: a type that the format does not know, or a file without a tensor.
    """
    for name in names:
        require_layout(checkpoint, name)
    if targets is None:
        outputs = _whole_outputs(checkpoint, names, file_name)
    else:
        refuse_missing(checkpoint, [name for name in targets if name not in unneeded])
        outputs = _rank_outputs(checkpoint, names, targets, file_name)
    for output in outputs:
        if not output.slices:
            raise ValueError(f"there is no parameter to put into {output.path}")
    tasks = _tasks(piece for number in range(len(outputs)) for piece in _pieces(outputs, number))
    return Conversion(checkpoint, outputs, tuple(tasks))


def _whole_outputs(
    checkpoint: SlicedCheckpoint, names: Sequence[str], file_name: str
) -> tuple[Output, ...]:
    """Return one .ckpt file, or as many .safetensors files as unified_safetensors makes."""
    sizes = {name: _nbytes(checkpoint, name) for name in names}
    bins: list[list[str]] = [[]]
    if file_name.endswith(SAFETENSORS):
        bins = [[] for _ in range(max(1, -(-sum(sizes.values()) // PART_NBYTES)))]
    filled = [0] * len(bins)
    for name in sorted(names, key=lambda name: -sizes[name]) if len(bins) > 1 else names:
        lightest = filled.index(min(filled))
        bins[lightest].append(name)
        filled[lightest] += sizes[name]
    paths = [Path(file_name)]
    if file_name.endswith(SAFETENSORS):
        bins = [chosen for chosen in bins if chosen] or [[]]  # one is enough for a huge tensor
        paths = [Path(f"part{number}{SAFETENSORS}") for number in range(len(bins))]
    whole = {name: (Region.whole(checkpoint.parameters[name].full_shape),) for name in names}
    return tuple(
        _output(checkpoint, path, 0, {name: whole[name] for name in chosen})
        for path, chosen in zip(paths, bins, strict=True)
    )


def _rank_outputs(
    checkpoint: SlicedCheckpoint,
    names: Sequence[str],
    targets: Mapping[str, Layout],
    file_name: str,
) -> tuple[Output, ...]:
    rank_count = 1 + max(layout.ranks[-1] for layout in targets.values())
    slices: list[dict[str, tuple[Region, ...]]] = [{} for _ in range(rank_count)]
    for name in names:
        shape = checkpoint.parameters[name].full_shape
        layout = targets.get(name) or Layout((rank_count,), ((),) * len(shape))
        try:
            if len(layout.axes) > len(shape):
                layout = layout.folded(shape, whole=True)
            for rank in layout.ranks:
                slices[rank][name] = layout.boxes(rank, shape)
        except LayoutError as error:
            raise error.of(name) from error
    return tuple(
        _output(checkpoint, Path(f"rank_{rank}", file_name), rank, boxes)
        for rank, boxes in enumerate(slices)
    )


def _output(
    checkpoint: SlicedCheckpoint, path: Path, rank: int, slices: Mapping[str, tuple[Region, ...]]
) -> Output:
    described = {
        name: (checkpoint.parameters[name].dtype, _stacked(boxes))
        for name, boxes in slices.items()
    }
    return Output(path, rank, slices, lay_out(path, described))


def _stacked(boxes: Sequence[Region]) -> tuple[int, ...]:
    """Return the shape of boxes whose rows follow each other."""
    first = boxes[0].shape
    return (sum(box.shape[0] for box in boxes), *first[1:]) if len(boxes) > 1 else first


def _pieces(outputs: Sequence[Output], number: int) -> Iterator[Piece]:
    output = outputs[number]
    for name, boxes in output.slices.items():
        itemsize = STORAGE[output.new.tensors[name].dtype].itemsize
        start = 0
        for box in boxes:
            for block in row_blocks(box.shape, max(TASK_NBYTES // itemsize, 1)):
                nbytes = block.num_elements * itemsize
                yield Piece(number, name, block.placed_in(box), start, nbytes)
                start += nbytes


def _tasks(pieces: Iterator[Piece]) -> Iterator[tuple[Piece, ...]]:
    """Group pieces of one file until they are as large as a task may be."""
    group: list[Piece] = []
    held = 0
    for piece in pieces:
        full = held + piece.nbytes > TASK_NBYTES or len(group) == _TASK_PIECES
        if group and (full or piece.output != group[0].output):
            yield tuple(group)
            group, held = [], 0
        group.append(piece)
        held += piece.nbytes
    if group:
        yield tuple(group)


def _nbytes(checkpoint: SlicedCheckpoint, name: str) -> int:
    saved = checkpoint.parameters[name]
    return math.prod(saved.full_shape) * STORAGE[saved.dtype].itemsize
