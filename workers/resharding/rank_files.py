"""Find the checkpoint file of each rank behind a pattern. Opens none of them."""

from __future__ import annotations

import glob
import itertools
import os
import re
from collections.abc import Sequence
from pathlib import Path

from workers.resharding.errors import MissingRankError, RankCountError, RankOrderError
from workers.resharding.steps import newest_common

PLACE = "{rank}"
_FOLDERS = ("rank_{rank}", "rank_{rank}_ckpt", os.path.join("device{rank}", "rank_{rank}_ckpt"))
_NAMES = ("*.ckpt", "*.safetensors")
_RANK_IN_NAME = re.compile(r"rank[_-]?(\d+)")
_ESCAPED = re.compile(r"\[([*?[{])\]")  # what escape makes


def escape(path: str) -> str:
    """Return the pattern that stands for this very path, also when its name holds ``{rank}``."""
    return glob.escape(path).replace(PLACE, "[{]" + PLACE[1:])


def find_rank_files(pattern: str, rank_count: int | None) -> dict[int, Path]:
    """Return the one file of each of the ranks 0 .. rank_count - 1.

    Args:
        pattern: a path with ``{rank}`` in it, and globs where names are not known; or a folder
            that holds ``rank_0``, ``rank_1``, ... Of several steps, the newest is taken that
            every rank has.
        rank_count: None for as many as there are.

    Raises:
        MissingRankError: ranks have no file.
        SeveralFilesError: a rank has several, and their names tell no step.
        RankCountError: there are files of more ranks than ``rank_count``.
        RankOrderError: a file has the number of another rank in its name.
        StepMismatchError: there is no step that every rank has.
    """
    patterns = _patterns(pattern)
    shown = patterns[0]
    numbers = itertools.count() if rank_count is None else iter(range(rank_count))
    found: dict[int, list[str]] = {}
    for rank in numbers:
        found[rank] = [path for each in patterns for path in _matches(each, rank)]
        if rank_count is None and not found[rank]:
            del found[rank]
            break
    missing = tuple(rank for rank, paths in found.items() if not paths) or (0,) * (not found)
    if missing:
        raise MissingRankError(shown, missing, rank_count)
    if PLACE not in shown and rank_count != 1:
        raise MissingRankError(shown, tuple(range(1, rank_count or 2)), rank_count)
    files = newest_common(shown, found)
    for rank, path in files.items():
        _check_name(_matching(patterns, rank, path), rank, path)
    beyond = [p for each in patterns for p in _matches(each, len(found)) if PLACE in each]
    if beyond:
        raise RankCountError(beyond[0], len(found))
    return {rank: Path(path) for rank, path in files.items()}


def whole_files(pattern: str) -> list[Path]:
    """Return the files of whole tensors behind a path, glob or folder that names no ranks."""
    if (folder := _folder(pattern)) is not None:
        root = escape(folder)
        paths = [path for name in _NAMES for path in _glob(os.path.join(root, name))]
    else:
        paths = _matches(pattern, 0)
    return [Path(path) for path in paths]


def holds_ranks(pattern: str) -> bool:
    """Return whether files of several ranks may lie behind a pattern."""
    if _folder(pattern) is None:
        return PLACE in pattern
    return any(_matches(each, 0) for each in _patterns(pattern))


def _patterns(pattern: str) -> Sequence[str]:
    """Return the patterns of the one kind of folder that there is; others hold no file."""
    if (named := _folder(pattern)) is None:
        return (pattern,)
    root = escape(named)
    kinds = [[os.path.join(root, folder, name) for name in _NAMES] for folder in _FOLDERS]
    return next((kind for kind in kinds if any(_matches(each, 0) for each in kind)), kinds[0])


def _folder(pattern: str) -> str | None:
    """Return the folder that a pattern names, as it is or escaped."""
    return next(filter(os.path.isdir, (pattern, _ESCAPED.sub(r"\1", pattern))), None)


def _matches(pattern: str, rank: int) -> list[str]:
    path = pattern.replace(PLACE, str(rank))
    return [path] if os.path.exists(path) else _glob(path)


def _glob(path: str) -> list[str]:
    return sorted(glob.glob(path, recursive=True))


def _matching(patterns: Sequence[str], rank: int, path: str) -> str:
    return next(each for each in patterns if path in _matches(each, rank))


def _check_name(pattern: str, rank: int, path: str) -> None:
    """Refuse a path in which the parts that the pattern left open name another rank only."""
    for written, part in zip(Path(_ESCAPED.sub(r"\1", pattern)).parts, Path(path).parts):
        named = {int(number) for number in _RANK_IN_NAME.findall(part)}
        if written != part and named and rank not in named:
            raise RankOrderError(path, rank, min(named))
