"""Find the checkpoint file of each rank behind a pattern. Opens none of them."""

from __future__ import annotations

import glob
import itertools
import os
import re
from collections.abc import Collection, Mapping, Sequence

from workers.resharding.errors import (
    MissingRankError,
    NoCheckpointError,
    RankCountError,
    RankOrderError,
)
from workers.resharding.listing import Listing, LocalListing
from workers.resharding.parameter_map import is_parameter_map
from workers.resharding.remote.address import Location, shown
from workers.resharding.steps import newest_common

PLACE = "{rank}"
_FOLDERS = ("rank_{rank}", "rank_{rank}_ckpt", os.path.join("device{rank}", "rank_{rank}_ckpt"))
_NAMES = ("*.ckpt", "*.safetensors")
_RANK_IN_NAME = re.compile(r"rank[_-]?(\d+)")
_NUMBER = re.compile("[0-9]+")
_ESCAPED = re.compile(r"\[([*?[{])\]")  # what escape makes


def escape(path: str) -> str:
    """Return the pattern that stands for this very path, also when its name holds ``{rank}``."""
    return glob.escape(path).replace(PLACE, "[{]" + PLACE[1:])


def find_rank_files(
    pattern: str, rank_count: int | None, listing: Listing | None = None
) -> dict[int, Location]:
    """Return the one file of each of the ranks 0 .. rank_count - 1.

    Args:
        pattern: a path with ``{rank}`` in it, and globs where names are not known; or a folder
            that holds ``rank_0``, ``rank_1``, ... Of several steps, the newest is taken that
            every rank has.
        rank_count: None for as many as there are.
        listing: tells which files there are; if not given, this host does.

    Raises:
        MissingRankError: ranks have no file.
        SeveralFilesError: a rank has several, and their names tell no step.
        RankCountError: there are files of more ranks than ``rank_count``.
        RankOrderError: a file has the number of another rank in its name.
        StepMismatchError: there is no step that every rank has.
    """
    listing = listing or LocalListing()
    patterns = _patterns(pattern, listing)
    told = " or ".join(map(shown, patterns))
    numbers = itertools.count() if rank_count is None else iter(range(rank_count))
    found: dict[int, dict[str, str]] = {}  # of each path, the pattern that it matches
    if rank_count is not None:
        listing.expect(_of_rank(each, rank) for each in patterns for rank in range(rank_count))
    for rank in numbers:
        found[rank] = {path: each for each in patterns for path in _matches(each, rank, listing)}
        if rank_count is None and not found[rank]:
            del found[rank]
            break
    missing = tuple(rank for rank, paths in found.items() if not paths) or (0,) * (not found)
    if missing:
        raise MissingRankError(told, missing, rank_count)
    if PLACE not in patterns[0] and rank_count != 1:
        raise MissingRankError(told, tuple(range(1, rank_count or 2)), rank_count)
    files = newest_common(told, {rank: list(paths) for rank, paths in found.items()})
    for rank, path in files.items():
        _check_name(found[rank][path], rank, path)
    if rank_count is not None:
        _refuse_more_ranks(patterns, found, listing)
    return {rank: listing.location(path) for rank, path in files.items()}


def whole_files(pattern: str, listing: Listing | None = None) -> list[Location]:
    """Return the files of whole tensors behind a path, glob or folder that names no ranks.

    Raises:
        NoCheckpointError: it is a folder without any.
    """
    listing = listing or LocalListing()
    if (folder := _folder(pattern, listing)) is not None:
        root = escape(folder)
        paths = [p for name in _NAMES for p in listing.matches(os.path.join(root, name))]
        if not paths:
            raise NoCheckpointError(shown(folder))
    else:
        paths = _matches(pattern, 0, listing)
    return [listing.location(path) for path in paths]


def parameter_maps(pattern: str, listing: Listing) -> list[Location]:
    """Return the files in a folder of whole tensors that say which file holds which."""
    if (folder := _folder(pattern, listing)) is None:
        return []
    paths = listing.matches(os.path.join(escape(folder), "*.json"))
    return [listing.location(path) for path in paths if is_parameter_map(path)]


def holds_ranks(pattern: str, listing: Listing) -> bool:
    """Return whether files of several ranks may lie behind a pattern."""
    if _folder(pattern, listing) is None:
        return PLACE in pattern
    return any(_matches(each, 0, listing) for each in _patterns(pattern, listing))


def _patterns(pattern: str, listing: Listing) -> Sequence[str]:
    """Return the patterns of the one kind of folder that there is; others hold no file."""
    if (named := _folder(pattern, listing)) is None:
        return (pattern,)
    root = escape(named)
    kinds = [[os.path.join(root, folder, name) for name in _NAMES] for folder in _FOLDERS]
    holding = (kind for kind in kinds if any(_matches(each, 0, listing) for each in kind))
    return next(holding, kinds[0])


def _folder(pattern: str, listing: Listing) -> str | None:
    """Return the folder that a pattern names, as it is or escaped."""
    return next(filter(listing.is_folder, (pattern, _ESCAPED.sub(r"\1", pattern))), None)


def _refuse_more_ranks(
    patterns: Sequence[str], found: Mapping[int, Collection[str]], listing: Listing
) -> None:
    """Refuse files of the rank after the last, or of others behind a gap."""
    if PLACE not in patterns[0]:
        return
    after = len(found)
    numbers = _numbers_at_hand(patterns[0], listing)  # all patterns are for the same folders
    taken = {path for paths in found.values() for path in paths}
    for rank in (after, *sorted(number for number in numbers if number > after)):
        for path in [path for each in patterns for path in _matches(each, rank, listing)]:
            if rank == after or path not in taken:
                raise RankCountError(shown(path), after)


def _numbers_at_hand(pattern: str, listing: Listing) -> set[int]:
    """Return the numbers in the names of what lies where ranks differ; some may be no ranks."""
    head, tail = pattern.split(PLACE, 1)
    folder, begin = os.path.split(head)
    end = tail.split(os.sep)[0].replace(PLACE, "*")
    name = re.sub(r"\*+", "*", f"{begin}*{end}")  # two stars would look into all folders
    paths = listing.at_hand(os.path.join(folder, name))
    return {int(number) for path in paths for number in _NUMBER.findall(os.path.basename(path))}


def _of_rank(pattern: str, rank: int) -> str:
    return pattern.replace(PLACE, str(rank))


def _matches(pattern: str, rank: int, listing: Listing) -> list[str]:
    return listing.matches(_of_rank(pattern, rank))


def _check_name(pattern: str, rank: int, path: str) -> None:
    """Refuse a path in which the parts that the pattern left open name another rank only."""
    for written, part in zip(_parts(_ESCAPED.sub(r"\1", pattern)), _parts(path)):
        if written != part:
            named = set(map(int, _RANK_IN_NAME.findall(part)))
            if named and rank not in named:
                raise RankOrderError(path, rank, min(named))


def _parts(path: str) -> list[str]:
    return [part for part in path.split(os.sep) if part not in ("", os.curdir)]
