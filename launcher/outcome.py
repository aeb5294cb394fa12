"""Say what a run is allowed to take and how it ended, in numbers and names."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from workers.protocol import RankReport


@dataclass(frozen=True, kw_only=True)
class Limits:
    """How long a run may take before it is ended, and how often it may begin again."""

    total_s: float  # from the first process to the last, of all attempts
    phase_s: float  # of every phase of a rank; in predict, between two batches
    grace_s: float = 5.0  # between SIGTERM and SIGKILL
    max_restarts: int = 0  # of all ranks, after a failure that is worth it


@dataclass(frozen=True, kw_only=True)
class RootCause:
    """The failure that ended a run; every other failure followed from it."""

    rank: int | None  # None: no single rank is to blame (deadline, interrupt, engine)
    server_id: str | None
    device_id: int | None
    phase: str | None  # of that rank, when it failed
    kind: str  # class name of an exception, or the kind of end: "Deadline", "Interrupted", ...
    message: str
    traceback: str  # empty when there is none
    log: Path  # where to read on
    exit_code: int
    worth_retrying: bool = False  # the same ranks may well succeed next time
    alike: tuple[int, ...] = ()  # other ranks that failed with the very same words


@dataclass(frozen=True)
class Restarted:
    """All ranks were started again."""

    number: int  # 1: for the first time
    cause: RootCause  # of the failure before
    batches: int  # that were verified then; they are not lost


@dataclass(frozen=True)
class Resumed:
    """The run goes on from an earlier one."""

    batches: int  # that are verified already; 0: there was nothing to go on from


@dataclass(frozen=True, kw_only=True)
class Outcome:
    """How a run ended."""

    exit_code: int  # 0: every rank said done, left cleanly, and the result is verified
    cause: RootCause | None
    followers: int  # other ranks that failed later or had to be stopped
    reports: Mapping[int, RankReport]  # of the ranks that said done
    outputs: tuple[Path, ...]  # verified: a file per output of the network, then the labels
    batches: int  # verified batches
    batch_ends: Sequence[Sequence[int]] = ()  # for each file, the row behind each batch
    partial: tuple[Path, ...] = ()  # of a failed run: the verified batches
    restarts: tuple[Restarted, ...] = ()
    warnings: tuple[str, ...] = ()  # what could not be written down beside the result
