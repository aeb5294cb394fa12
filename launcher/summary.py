"""Say to a person how a run ended: the result and what it took, or the cause of the failure."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
from rich.table import Table

from launcher.outcome import Restarted, RootCause
from launcher.run_result import Result
from launcher.text import (
    checks,
    fitting,
    initial,
    name_ranks,
    plural,
    seconds,
    shape,
    short,
    size,
)
from workers.protocol import PHASES

MESSAGE_LINES = 12  # the rest is in the log of the rank
TRACEBACK_LINES = 8
TEXT_LINES = 16  # of both
BAD_INPUT = 2  # exit code; such a message says what to mend, and the traceback only who found out
_TIMED_PHASES = PHASES[1:-1]


def success(result: Result) -> list[str]:
    """Return the lines that follow the table of ranks."""
    lines = []
    if result.checked:
        lines.append(f"checked      {checks(result.checked)}")
    if result.initial:
        lines.append(f"initial      {initial(result.initial)}")
    if result.metrics is not None:
        lines.append(f"metrics      {dict(result.metrics)}")
    if result.accuracy is not None:
        count = int(np.prod(result.arrays()[0].shape[:-1]))
        lines.append(f"accuracy     {result.accuracy:.2%} of {plural(count, 'prediction')}")
    if result.single is not None:
        lines.append(f"difference   {result.single}")
    for path, array in zip(result.predictions, result.arrays(), strict=True):
        lines.append(f"predictions  {short(path)} ({shape(array.shape)}, {array.dtype.name})")
    lines += [f"restarted    {restart(restarted)}" for restarted in result.restarts]
    lines.append(f"summary      {short(result.summary)}")
    lines.append(f"logs         {short(result.ranks[0].log.parent)}")
    batches, ranks = plural(result.batches, "batch"), plural(len(result.ranks), "rank")
    lines.append(f"verified     {batches} by {ranks} in {seconds(result.seconds)}")
    return lines


def restart(restarted: Restarted) -> str:
    """Return what the ranks were started again for, in a line."""
    cause, kept = restarted.cause, plural(restarted.batches, "verified batch")
    who = f"rank {cause.rank}" if cause.rank is not None else "the ranks"
    phase = f" in phase {cause.phase}" if cause.phase else ""
    reason = fitting(cause.message.strip().partition("\n")[0])
    return f"{who} failed{phase}: {cause.kind}: {reason}; kept {kept}"


def rank_summary(result: Result) -> Table:
    """Return a row for each rank: where it ran, and what every phase and the memory took."""
    table = Table(box=None, pad_edge=False)
    reports = [rank.report for rank in result.ranks if rank.report is not None]
    on_device = any(report.device_memory_bytes is not None for report in reports)
    titles = ("rank", "device", *_TIMED_PHASES, "read", "peak memory")
    for title in (*titles, "on device") if on_device else titles:
        table.add_column(title, justify="left" if title == "device" else "right")
    for rank in result.ranks:
        if rank.report is None:
            continue
        times = [seconds(rank.report.phase_seconds.get(phase, 0.0)) for phase in _TIMED_PHASES]
        bytes_of = [rank.report.bytes_read, rank.report.peak_memory_bytes]
        if on_device:
            bytes_of.append(rank.report.device_memory_bytes or 0)
        place = f"{rank.server_id}:{rank.device_id}"
        table.add_row(str(rank.rank), place, *times, *map(size, bytes_of))
    return table


def failure(result: Result) -> list[str]:
    """Return what a person must know, the most important first; at most 25 lines."""
    if result.cause is None:
        return [f"failed with exit code {result.exit_code}", f"logs: {result.ranks[0].log.parent}"]
    return list(_failure(result, result.cause))


def _failure(result: Result, cause: RootCause) -> Iterator[str]:
    yield f"failed: {_who(cause)}{cause.kind} (exit code {cause.exit_code})"
    message = _first_lines(cause.message)
    yield from (f"  {line}" for line in message)
    if (frames := _frames(cause)) and cause.exit_code != BAD_INPUT:
        yield "last lines of its traceback:"
        count = min(TRACEBACK_LINES, TEXT_LINES - len(message))
        yield from (f"  {line}" for line in _last_lines(frames, count))
    yield f"log: {short(cause.log)}"
    if cause.alike:
        yield f"{name_ranks(cause.alike)} failed with the same error"
    if (others := result.followers - len(cause.alike)) and cause.rank is not None:
        what = plural(others, "other rank")
        yield f"{what} merely followed: stopped, or failed because of it"
    elif others:
        yield f"{plural(others, 'rank')} had to be stopped"
    if result.restarts:
        yield f"the ranks had been restarted {plural(len(result.restarts), 'time')} before"
    if result.partial:
        first, *more = result.partial
        beside = f" and {plural(len(more), 'file')} beside it" if more else ""
        batches = plural(result.batches, "batch")
        yield f"kept: {short(first)}{beside} ({batches} that had been verified)"


def _who(cause: RootCause) -> str:
    if cause.rank is None:
        return ""
    phase = f" in phase {cause.phase}" if cause.phase else ""
    return f"rank {cause.rank} ({cause.server_id}, device {cause.device_id}){phase}: "


def _first_lines(message: str) -> list[str]:
    """Return how a message begins; MindSpore's go on with sections, each under a line of dashes."""
    lines = [fitting(line) for line in message.strip().splitlines() if line.strip(" -")]
    return lines if len(lines) <= MESSAGE_LINES else [*lines[:MESSAGE_LINES], "..."]


def _frames(cause: RootCause) -> str:
    """Return the traceback, without the message in its end that is told already."""
    text, message = cause.traceback.strip(), cause.message.strip()
    return text.removesuffix(message).rpartition("\n")[0] if text.endswith(message) else text


def _last_lines(text: str, count: int) -> list[str]:
    lines = [fitting(line) for line in text.splitlines()]
    return lines if len(lines) <= count else ["...", *lines[-count:]]
