"""Find the checkpoint file of each rank behind a pattern. Opens none of them."""

from __future__ import annotations

import glob
import os
import re
from collections.abc import Mapping
from pathlib import Path

from workers.resharding.errors import (
    MissingRankError,
    RankCountError,
    RankOrderError,
    SeveralFilesError,
    StepMismatchError,
)

PLACE = "{rank}"
_IN_FOLDER = os.path.join("rank_{rank}", "*.ckpt")
_RANK_IN_NAME = re.compile(r"rank[_-]?(\d+)")
_STEP_IN_NAME = re.compile(r"-(\d+_\d+)\.[a-z]+$")  # prefix-epoch_step.ckpt


def find_rank_files(pattern: str, rank_count: int) -> dict[int, Path]:
    """Return the one file of each of the ranks 0 .. rank_count - 1.

    Args:
        pattern: a path with ``{rank}`` in it, and globs where names are not known; or a folder
            that holds ``rank_0``, ``rank_1``, ...

    Raises:
        MissingRankError: ranks have no file.
        SeveralFilesError: a rank has several, of several steps perhaps.
        RankCountError: there are files of more ranks than ``rank_count``.
        RankOrderError: a file has the number of another rank in its name.
        StepMismatchError: the names of the files tell different steps.
    """
    if os.path.isdir(pattern):
        pattern = os.path.join(pattern, _IN_FOLDER)
    found = {rank: _matches(pattern, rank) for rank in range(rank_count)}
    missing = tuple(rank for rank, paths in found.items() if not paths)
    if missing:
        raise MissingRankError(pattern, missing, rank_count)
    if PLACE not in pattern and rank_count > 1:
        raise MissingRankError(pattern, tuple(range(1, rank_count)), rank_count)
    for rank, paths in found.items():
        if len(paths) > 1:
            raise SeveralFilesError(pattern, rank, tuple(paths))
        _check_name(pattern, rank, paths[0])
    beyond = _matches(pattern, rank_count) if PLACE in pattern else []
    if beyond:
        raise RankCountError(beyond[0], rank_count)
    files = {rank: Path(paths[0]) for rank, paths in found.items()}
    _check_steps(files)
    return files


def _matches(pattern: str, rank: int) -> list[str]:
    path = pattern.replace(PLACE, str(rank))
    return [path] if os.path.exists(path) else sorted(glob.glob(path, recursive=True))


def _check_name(pattern: str, rank: int, path: str) -> None:
    """Refuse a path in which the parts that the pattern left open name another rank only."""
    for written, part in zip(Path(pattern).parts, Path(path).parts):
        named = {int(number) for number in _RANK_IN_NAME.findall(part)}
        if written != part and named and rank not in named:
            raise RankOrderError(path, rank, min(named))


def _check_steps(files: Mapping[int, Path]) -> None:
    first: tuple[str, Path] | None = None
    for path in files.values():
        match = _STEP_IN_NAME.search(path.name)
        if match is None:
            continue
        first = first or (match[1], path)
        if match[1] != first[0]:
            raise StepMismatchError(str(first[1]), str(path))
