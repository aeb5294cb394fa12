"""Put the files of all ranks and their layouts together; refuse what does not fit together.

Reads the headers of the files, and of tensors a few bytes at most.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

from workers.resharding.checkpoint_file import read_indices
from workers.resharding.counters import check_counters
from workers.resharding.errors import (
    IncompleteFileError,
    LayoutError,
    MisplacedParameterError,
    SharedFileError,
    SliceMismatchError,
)
from workers.resharding.index import CheckpointIndex
from workers.resharding.layout import Layout
from workers.resharding.listing import Listing, listing_of
from workers.resharding.parameter_map import require_parts
from workers.resharding.rank_files import (
    find_rank_files,
    holds_ranks,
    parameter_maps,
    whole_files,
)
from workers.resharding.remote.address import shown
from workers.resharding.remote.cache import Cache
from workers.resharding.saved import SavedParameter, SlicedCheckpoint
from workers.resharding.steps import newest_common
from workers.resharding.strategy_file import read_strategy_file
from workers.resharding.unnamed import find_unnamed_slices
from workers.resharding.whole_tensors import are_whole, require_whole

__all__ = ["SavedParameter", "SlicedCheckpoint", "open_checkpoint"]


def open_checkpoint(
    pattern: str,
    strategy: str | Path | None = None,
    key: bytes | None = None,
    cache: Cache | None = None,
) -> SlicedCheckpoint:
    """Return what a set of checkpoint files holds, checked as a whole.

    Args:
        pattern: where the file of each rank lies: see ``find_rank_files``; a path or a URL.
            Without a strategy, files that hold whole tensors: one, or a folder with several that
            share the parameters, or one of each rank that all hold the same.
        strategy: the strategy file, or folder of them, that was saved with the slices.
        key: opens encrypted files.
        cache: where parts of remote files are kept; in the home folder if not given.

    Raises:
        ReshardError: files or ranks are missing, torn, or contradict the strategy or each other.
    """
    listing = listing_of(pattern, cache)
    if strategy is None:
        return _open_whole(pattern, key, listing)
    layouts = read_strategy_file(strategy, cache)
    paths = find_rank_files(pattern, layouts.rank_count, listing)
    return combine(read_indices(paths, key), layouts)


def combine(
    files: Mapping[int, CheckpointIndex], layouts: Mapping[str, Layout]
) -> SlicedCheckpoint:
    """Return what files hold together, of which a strategy tells the layouts."""
    stage_size = next(iter(layouts.values())).stage_size
    parameters = {}
    for name in dict.fromkeys(name for index in files.values() for name in index.tensors):
        layout = layouts.get(name) or _replicated(name, files, stage_size)
        parameters[name] = _combine(name, layout, name in layouts, files)
    check_counters(files)
    if are_whole(files, parameters):
        parameters = {name: _whole(name, saved, files) for name, saved in parameters.items()}
    _refuse_shared_files(files, parameters)
    unnamed_slices = find_unnamed_slices(files, parameters)
    return SlicedCheckpoint(files, parameters, frozenset(layouts), unnamed_slices)


def _open_whole(pattern: str, key: bytes | None, listing: Listing) -> SlicedCheckpoint:
    """Open files that hold whole tensors, such as integrated_save=True writes."""
    if holds_ranks(pattern, listing):
        files = read_indices(find_rank_files(pattern, None, listing), key)
        require_whole(shown(pattern), files)
        return replace(combine(files, {"": Layout((len(files),), ())}), named=frozenset())
    paths = whole_files(pattern, listing) or [listing.location(pattern)]
    files = read_indices(dict(enumerate(paths)), key)
    holders: dict[str, int] = {}
    for number, index in files.items():
        if any(name in holders for name in index.tensors):  # not parts: one file for each step
            path = newest_common(shown(pattern), {0: list(map(str, paths))})[0]
            files, holders = {0: files[list(map(str, paths)).index(path)]}, {}
            holders.update(dict.fromkeys(files[0].tensors, 0))
            break
        holders.update(dict.fromkeys(index.tensors, number))
    for told in parameter_maps(pattern, listing):
        require_parts(told, holders)
    parameters = {}
    for name, number in holders.items():
        tensor = files[number].tensors[name]
        layout = Layout((len(files),), ((),) * len(tensor.dims))
        parameters[name] = SavedParameter(layout, tensor.dims, tensor.dtype, (number,), False)
    return SlicedCheckpoint(files, parameters)


def _combine(
    name: str, layout: Layout, in_strategy: bool, files: Mapping[int, CheckpointIndex]
) -> SavedParameter:
    """Return what the slices of all ranks make together."""
    holders = tuple([rank for rank in layout.ranks if name in files[rank].tensors])
    if not holders:
        where = next(index for index in files.values() if name in index.tensors)
        raise MisplacedParameterError(name, str(where.path), layout.ranks)
    first = files[holders[0]].tensors[name]
    try:
        if len(layout.axes) > len(first.dims):
            layout = layout.folded(first.dims)
        full_shape = layout.full_shape(first.dims)
        saved = SavedParameter(layout, full_shape, first.dtype, holders, in_strategy)
        _check_slices(name, saved, files)
        _check_holders(name, saved, files)
    except LayoutError as error:
        raise error.of(name) from error
    return saved


def _check_slices(
    name: str, saved: SavedParameter, files: Mapping[int, CheckpointIndex]
) -> None:
    """Refuse a slice that has not the shape and type which the layout and the others ask for."""
    layout, lowest = saved.layout, saved.holders[0]
    alike = files[lowest].tensors[name].dims if not layout.split_sizes else None
    for rank in saved.holders:
        tensor = files[rank].tensors[name]
        dims = alike or layout.stored_shape(rank, saved.full_shape)
        if tensor.dims != dims or tensor.dtype != saved.dtype:
            told = layout.split_sizes and tensor.dims != dims
            raise SliceMismatchError(
                name,
                f"rank {rank} by the strategy" if told else str(files[lowest].path),
                _describe(saved.dtype, dims),
                str(files[rank].path),
                _describe(tensor.dtype, tensor.dims),
            )
    if layout.field_size:
        layout.boxes(lowest, saved.full_shape)  # the fields of a parameter must divide its rows


def _check_holders(
    name: str, saved: SavedParameter, files: Mapping[int, CheckpointIndex]
) -> None:
    """Refuse a parameter that a rank should have saved and did not: its file ends too early.

    With remove_redundancy=True every slice is saved exactly once, by any of its replicas.
    """
    if saved.only is None:
        return
    slices = list(saved.boxes.values())
    needed = set(replace(saved, holders=saved.layout.ranks).boxes.values())
    if not len(slices) == len(set(slices)) == len(needed):
        absent = min(set(saved.layout.ranks) - saved.only)
        raise IncompleteFileError(
            name, absent, str(files[absent].path), str(files[saved.holders[0]].path)
        )


def _replicated(name: str, files: Mapping[int, CheckpointIndex], stage_size: int) -> Layout:
    """Return the layout of what no strategy names: counters, learning rates, ... whole on each."""
    holders = [rank for rank, index in files.items() if name in index.tensors]
    dims = files[holders[0]].tensors[name].dims
    stages = sorted({rank // stage_size for rank in holders})
    return Layout((stage_size,), ((),) * len(dims), stages=tuple(stages))


def _whole(
    name: str, saved: SavedParameter, files: Mapping[int, CheckpointIndex]
) -> SavedParameter:
    """Return a parameter of which every holder holds all."""
    dims = files[saved.holders[0]].tensors[name].dims
    layout = Layout(saved.layout.device_matrix, ((),) * len(dims), stages=saved.layout.stages)
    return replace(saved, layout=layout, full_shape=dims)


def _refuse_shared_files(
    files: Mapping[int, CheckpointIndex], parameters: Mapping[str, SavedParameter]
) -> None:
    """Refuse one file (a link, perhaps) in the place of two ranks that hold different slices."""
    first_user: dict[tuple[int, int], int] = {}
    for rank, index in files.items():
        other = first_user.setdefault((index.identity.device, index.identity.inode), rank)
        for name, saved in parameters.items() if other != rank else ():
            boxes = saved.boxes
            if boxes.get(rank) != boxes.get(other):
                raise SharedFileError(name, other, str(files[other].path), rank, str(index.path))


def _describe(dtype: str, dims: tuple[int, ...]) -> str:
    return f"{dtype} {list(dims)}"
