"""Decide which of the files of each rank are of the newest step that every rank has. Only names."""

from __future__ import annotations

import os
import re
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

from workers.resharding.errors import SeveralFilesError, StepMismatchError

_RANK = re.compile(r"rank[_-]?\d+")
# prefix-epoch_step.ckpt; a job that was started again writes prefix_1-epoch_step.ckpt, ...
_NAME = re.compile(r"(.*?)(?:_(\d+))?-(\d+)_(\d+)(_breakpoint)?\.[a-z]+", re.DOTALL)


class Step(NamedTuple):
    """When a file was saved. Compared as numbers: 10_1 is newer than 9_1."""

    run: int  # 0 for a job that was never started again
    epoch: int
    step: int
    regular: bool  # not saved because of an exception


def step_of(path: str | Path) -> tuple[str, Step] | None:
    """Return the prefix in the name of a file, and its step; None if the name tells no step."""
    match = _NAME.fullmatch(_RANK.sub("rank", os.path.basename(path)))
    if match is None:
        return None
    prefix, run, epoch, step, breakpoint_mark = match.groups()
    return prefix, Step(int(run or 0), int(epoch), int(step), breakpoint_mark is None)


def newest_common(pattern: str, found: Mapping[int, Sequence[str]]) -> dict[int, str]:
    """Return one file of each rank.

    Args:
        pattern: names the files in errors.
        found: at least one file for each rank.

    Raises:
        SeveralFilesError: a rank has several files, and their names do not tell which to take.
        StepMismatchError: there is no step that all ranks have.
    """
    by_step = {rank: _by_step(pattern, rank, paths) for rank, paths in found.items()}
    timed = {rank: steps for rank, steps in by_step.items() if None not in steps}
    chosen = {rank: next(iter(steps.values())) for rank, steps in by_step.items()}
    if timed:
        common = set.intersection(*(set(steps) for steps in timed.values()))
        newest = _newest(pattern, common, timed)
        chosen.update((rank, steps[newest]) for rank, steps in timed.items())
    return chosen


def _by_step(
    pattern: str, rank: int, paths: Sequence[str]
) -> dict[tuple[str, Step] | None, str]:
    steps = {step_of(path): path for path in paths}
    if len(steps) < len(paths) or (None in steps and len(steps) > 1):
        raise SeveralFilesError(pattern, rank, tuple(paths))
    return steps


def _newest(
    pattern: str,
    common: Iterable[tuple[str, Step] | None],
    files: Mapping[int, Mapping[tuple[str, Step] | None, str]],
) -> tuple[str, Step]:
    steps = sorted((key for key in common if key is not None), key=lambda key: key[1])
    first, *others = files.values()
    if not steps:
        other = next(steps for steps in others if set(steps) != set(first))
        raise StepMismatchError(max(first.values()), max(other.values()))
    if len({prefix for prefix, _ in steps}) > 1:
        raise SeveralFilesError(pattern, next(iter(files)), tuple(first.values()))
    return steps[-1]
