"""Read a rank table from its file, and wait while somebody is still filling it in.

In a cluster a controller first writes ``{"status": "initializing"}`` and the devices later. HCCL
waits half an hour for them without a word; here the limit is the job's, and a line tells of it.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path

from launcher.errors import DEADLINE_EXIT_CODE, LauncherError, Problem, RankTableError
from launcher.rank_table.reading import Reading, read_rank_table
from launcher.rank_table.table import RankTable

POLL_S = 1.0  # between two looks at the file; HCCL's own
TELL_S = 10.0  # between two lines that tell of the waiting


class RankTableTimeout(LauncherError):
    """Nobody filled in the rank table in time."""

    exit_code = DEADLINE_EXIT_CODE

    def __init__(self, source: str, limit_s: float) -> None:
        super().__init__(source, limit_s)
        self.source, self.limit_s = source, limit_s

    def __str__(self) -> str:
        return (
            f"{self.source}: still 'initializing' after {self.limit_s:g} s; is the controller that"
            " fills it in running? --phase-timeout sets the limit"
        )


def load_rank_table(path: Path, limit_s: float, tell: Callable[[str], None]) -> RankTable:
    """Return the table of a file, as soon as it is filled in.

    Args:
        limit_s: how long to wait for that.
        tell: is called with a line for people, now and then while nothing happens, and with each
            warning.

    Raises:
        RankTableError: there is no such file, or what is wrong with it.
        RankTableTimeout: the time is over.
    """
    reading = await_table(lambda: read_rank_table(read_text(path)), str(path), limit_s, tell)
    if reading.initializing:
        raise RankTableTimeout(str(path), limit_s)
    if reading.table is None:
        raise RankTableError(str(path), reading.errors)
    for finding in reading.warnings:
        tell(f"{path}: warning: {finding}")
    return reading.table


def await_table(
    read: Callable[[], Reading],
    source: str,
    limit_s: float,
    tell: Callable[[str], None],
    clock: Callable[[], float] = time.monotonic,
    sleep: Callable[[float], None] = time.sleep,
) -> Reading:
    """Read again and again until the table is filled in or the time is over; return the last."""
    started_s = clock()
    reading, next_line_s = read(), 0.0
    was_initializing = reading.initializing
    while was_initializing and not reading.version:  # no version: initializing, or half written
        waited_s = clock() - started_s
        if waited_s >= limit_s:
            break
        if waited_s >= next_line_s:
            tell(f"waiting for {source} to be filled in: {waited_s:.0f} s of {limit_s:g} s")
            next_line_s = waited_s + TELL_S
        sleep(min(POLL_S, limit_s - waited_s))
        reading = read()
    return reading


def read_text(path: Path) -> str:
    """Return the text of a rank table.

    Raises:
        RankTableError: the file cannot be read.
    """
    try:
        return path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        reason = getattr(error, "strerror", None) or str(error)
        problem = Problem("", reason, "name an HCCL rank table; rank_tables/ holds examples")
        raise RankTableError(str(path), [problem]) from error
