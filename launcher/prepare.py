"""Decide where the ranks of a job run, and check what they will need.

Ranks import MindSpore for seconds. Until that has begun the user waits for whatever this process
imports: what is not needed before is imported after.
"""

from __future__ import annotations

import os
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from launcher.engines.engine import Starter
from launcher.hub import resolve
from launcher.job import Job
from launcher.placement import Placement, count_ranks, place
from launcher.rank_table.table import RankTable
from launcher.run_folder import RunFolder
from launcher.streams import tell

if TYPE_CHECKING:
    from workers.resharding.checkpoint import SlicedCheckpoint


@dataclass(frozen=True)
class Prepared:
    """A job that can start: everything is checked, and nothing has been written yet."""

    job: Job
    folder: RunFolder
    placement: Placement
    checkpoint: SlicedCheckpoint | None  # what the job loads, opened once to check it
    checked: Mapping[str, int]  # of its content: how many files, or slices, each check compared
    warnings: tuple[str, ...]  # of what looks wrong with it
    starter: Starter


def prepare(job: Job, given: RankTable | None, starter: Starter) -> Prepared:
    """Decide where the ranks of a job run, and check what they will need.

    Args:
        given: the rank table that the job names, if it names one.

    Raises:
        LauncherError: the job, a file that it names, or a host will not do.
    """
    job = resolve(job, os.environ)
    ranks = count_ranks(job, given)
    folder = RunFolder(job.output or default_output())

    def placed() -> Placement:
        return place(job, given, starter.sites(ranks, job.phase_timeout), folder)

    placement = None
    if not starter.waits:
        placement = placed()
        starter.get_ready(placement.specs[0])
    from launcher import preflight  # with NumPy, while MindSpore is imported elsewhere

    checkpoint = preflight.check(job, folder.root)
    checked = preflight.verify_content(job, checkpoint)
    placement = placement or placed()
    if checkpoint is not None:
        placement = placement.with_checkpoint(checkpoint.version)
    warnings = preflight.doubts(checkpoint)
    return Prepared(job, folder, placement, checkpoint, checked, warnings, starter)


@contextmanager
def under_way(prepared: Prepared) -> Iterator[None]:
    """Take the output folder for a run.

    Raises:
        FolderInUseError: another run writes to the same folder.
        OSError: the folder cannot be made or written to; no rank has been started.
    """
    with prepared.folder.locked():
        prepared.folder.begin()
        yield


def read_rank_table(job: Job) -> RankTable | None:
    """Return the rank table that the job names, if it names one, once it is filled in."""
    if job.rank_table is None:
        return None
    from launcher.rank_table.waiting import load_rank_table  # most jobs need no parser of tables

    return load_rank_table(job.rank_table, job.phase_timeout, tell)


def default_output() -> Path:
    """Return a folder that no other run has: two may start in the same second."""
    return Path.cwd() / "runs" / time.strftime(f"%Y%m%d-%H%M%S-{os.getpid()}")
