"""Put the files of all ranks and their layouts together; refuse what does not fit together.

Reads the headers of the files, never a tensor.
"""

from __future__ import annotations

import glob
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from workers.resharding.checkpoint_file import CheckpointIndex, SavedTensor, read_index
from workers.resharding.errors import (
    IncompleteFileError,
    LayoutError,
    MisplacedParameterError,
    SharedFileError,
    SliceMismatchError,
    StrategyNeededError,
)
from workers.resharding.layout import Layout
from workers.resharding.rank_files import PLACE, find_rank_files
from workers.resharding.region import Region
from workers.resharding.strategy_file import read_strategy_file


@dataclass(frozen=True)
class SavedParameter:
    """A parameter of a checkpoint, and the ranks whose files hold its slices."""

    layout: Layout
    full_shape: tuple[int, ...]
    dtype: str  # MindSpore's name
    holders: tuple[int, ...]  # ranks; fewer than the layout's if replicas were saved once only

    @property
    def regions(self) -> Mapping[int, Region]:
        """What the file of each holder holds."""
        regions = self.layout.regions(self.full_shape)
        if len(self.holders) == len(regions):
            return regions
        return {rank: regions[rank] for rank in self.holders}


@dataclass(frozen=True)
class SlicedCheckpoint:
    """The files of all ranks that saved together."""

    files: Mapping[int, CheckpointIndex]  # by global rank
    parameters: Mapping[str, SavedParameter]  # optimizer state and counters among them


def open_checkpoint(pattern: str, strategy: str | Path | None = None) -> SlicedCheckpoint:
    """Return what a set of checkpoint files holds, checked as a whole.

    Args:
        pattern: where the file of each rank lies: see ``find_rank_files``. Without a strategy,
            one file that holds whole tensors.
        strategy: the strategy file, or folder of them, that was saved with the slices.

    Raises:
        ReshardError: files or ranks are missing, torn, or contradict the strategy or each other.
    """
    if strategy is None:
        return _open_whole(pattern)
    layouts = read_strategy_file(strategy)
    rank_count = 1 + max(layout.ranks[-1] for layout in layouts.values())
    paths = find_rank_files(pattern, rank_count)
    files = {rank: read_index(path) for rank, path in paths.items()}
    stage_size = next(iter(layouts.values())).stage_size
    parameters = {}
    for name in dict.fromkeys(name for index in files.values() for name in index.tensors):
        layout = layouts.get(name) or _replicated(name, files, stage_size)
        parameters[name] = _combine(name, layout, files)
    _refuse_shared_files(files, parameters)
    return SlicedCheckpoint(files, parameters)


def _open_whole(pattern: str) -> SlicedCheckpoint:
    """Open one file that holds whole tensors, such as integrated_save=True writes."""
    path = Path(pattern)
    if not path.exists():
        matches = glob.glob(pattern)
        path = Path(matches[0]) if len(matches) == 1 else path
    if PLACE in pattern or path.is_dir():
        raise StrategyNeededError(pattern)
    files = {0: read_index(path)}
    parameters = {}
    for name, tensor in files[0].tensors.items():
        layout = Layout((1,), ((),) * len(tensor.dims))
        parameters[name] = SavedParameter(layout, tensor.dims, tensor.dtype, (0,))
    return SlicedCheckpoint(files, parameters)


def _combine(name: str, layout: Layout, files: Mapping[int, CheckpointIndex]) -> SavedParameter:
    """Return what the slices of all ranks make together."""
    holders = tuple(rank for rank in layout.ranks if name in files[rank].tensors)
    if not holders:
        where = next(index for index in files.values() if name in index.tensors)
        raise MisplacedParameterError(name, str(where.path), layout.ranks)
    first = files[holders[0]].tensors[name]
    for rank in holders:
        other = files[rank].tensors[name]
        if (other.dims, other.dtype) != (first.dims, first.dtype):
            raise SliceMismatchError(
                name,
                str(files[holders[0]].path),
                _describe(first),
                str(files[rank].path),
                _describe(other),
            )
    try:
        if len(layout.axes) > len(first.dims):
            layout = layout.folded(len(first.dims))
        full_shape = layout.full_shape(first.dims)
        saved = SavedParameter(layout, full_shape, first.dtype, holders)
        _check_holders(name, saved, files)
    except LayoutError as error:
        raise error.of(name) from error
    return saved


def _check_holders(
    name: str, saved: SavedParameter, files: Mapping[int, CheckpointIndex]
) -> None:
    """Refuse a parameter that a rank should have saved and did not: its file ends too early.

    With remove_redundancy=True every slice is saved exactly once, by any of its replicas.
    """
    absent = sorted(set(saved.layout.ranks) - set(saved.holders))
    if not absent:
        return
    boxes = list(saved.regions.values())
    needed = set(saved.layout.regions(saved.full_shape).values())
    if not len(boxes) == len(set(boxes)) == len(needed):
        raise IncompleteFileError(
            name, absent[0], str(files[absent[0]].path), str(files[saved.holders[0]].path)
        )


def _replicated(name: str, files: Mapping[int, CheckpointIndex], stage_size: int) -> Layout:
    """Return the layout of what no strategy names: counters, learning rates, ... whole on each."""
    holders = [rank for rank, index in files.items() if name in index.tensors]
    dims = files[holders[0]].tensors[name].dims
    stages = sorted({rank // stage_size for rank in holders})
    return Layout((stage_size,), ((),) * len(dims), stages=tuple(stages))


def _refuse_shared_files(
    files: Mapping[int, CheckpointIndex], parameters: Mapping[str, SavedParameter]
) -> None:
    """Refuse one file (a link, perhaps) in the place of two ranks that hold different slices."""
    first_user: dict[tuple[int, int], int] = {}
    for rank, index in files.items():
        other = first_user.setdefault((index.identity.device, index.identity.inode), rank)
        for name, saved in parameters.items() if other != rank else ():
            regions = saved.regions
            if regions.get(rank) != regions.get(other):
                raise SharedFileError(name, other, str(files[other].path), rank, str(index.path))


def _describe(tensor: SavedTensor) -> str:
    return f"{tensor.dtype} {list(tensor.dims)}"
