"""Show how far each rank is while a run goes on: a live table on a terminal, lines elsewhere."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, field

from rich.console import Console, Group
from rich.live import Live
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text

from launcher.outcome import Restarted, Resumed
from launcher.summary import restart
from launcher.text import duration, fitting, plural, seconds, size
from workers.protocol import (
    PHASES,
    Done,
    Expected,
    Failed,
    Fetched,
    Message,
    PhaseEntered,
    Prediction,
)
from workers.spec import WorkerSpec

TELL_EVERY_S = 10.0  # between two lines about the batches, where there is no terminal
_POINTS = (PHASES[0], PHASES[-1])  # "started" and "done" take no time
LAGGING_S = 1.0  # a rank that reaches a phase this long after the first one is named


@dataclass
class Board:
    """What is known of every rank. Time comes in with each message; there is no clock here."""

    ranks: int
    entered_s: dict[tuple[int, str], float] = field(default_factory=dict)  # (rank, phase) -> when
    phase: dict[int, str] = field(default_factory=dict)  # of each rank, the latest
    ended: dict[int, str] = field(default_factory=dict)  # rank -> "done" or "failed"
    expected: dict[int, int] = field(default_factory=dict)  # rank -> batches it will send
    batches: int = 0  # whose outputs have come
    first_batch_s: float = 0.0
    fetched: dict[int, Fetched] = field(default_factory=dict)  # of each rank, the latest
    told_s: float = 0.0  # when the latest line about batches, or bytes, was worth it
    failures: set[str] = field(default_factory=set)  # that were told, whichever rank they are of

    def note(self, message: Message, at_s: float) -> list[str]:
        """Take in a message; return the lines it is worth."""
        match message:
            case PhaseEntered(rank, phase):
                self.phase[rank] = phase
                self.entered_s[rank, phase] = at_s
                return self._reached(phase)
            case Fetched(rank):
                self.fetched[rank] = message
                if at_s - self.told_s >= TELL_EVERY_S:
                    self.told_s = at_s
                    return [f"{at_s:6.1f} s  load     {self._fetched()}"]
            case Expected(rank, batches):
                self.expected[rank] = batches
            case Prediction():
                self.batches += 1
                if self.batches == 1:
                    self.first_batch_s = self.told_s = at_s
                if at_s - self.told_s >= TELL_EVERY_S:
                    self.told_s = at_s
                    return [f"{at_s:6.1f} s  predict  {self.pace(at_s)}"]
            case Done(rank):
                self.ended[rank] = "done"
            case Failed(rank, phase, kind, text):
                self.ended[rank] = "failed"
                first_line = fitting(text.strip().partition("\n")[0])
                failure = f"failed in {phase}: {kind}: {first_line}"
                same = failure if message.echo_of is None else "lost a peer"
                if same not in self.failures:  # many ranks may say it
                    self.failures.add(same)
                    return [f"{at_s:6.1f} s  rank {rank} {failure}"]
        return []

    def _fetched(self) -> str:
        here, total = (
            sum(getattr(told, name) for told in self.fetched.values())
            for name in ("nbytes", "total")
        )
        return f"{size(here)} of {size(total)} fetched"

    @property
    def total(self) -> int:
        """How many batches will come in all; 0: nobody knows."""
        return max(self.batches, sum(self.expected.values())) if self.expected else 0

    def pace(self, at_s: float) -> str:
        """Say how many batches there are, how fast they come, and how long the rest takes."""
        total = self.total
        done = f"{self.batches} of {total} batches" if total else plural(self.batches, "batch")
        passed_s = at_s - self.first_batch_s
        if self.batches < 2 or passed_s <= 0:
            return done
        rate = (self.batches - 1) / passed_s
        left = f", {duration((total - self.batches) / rate)} left" if total else ""
        return f"{done}, {rate:.3g} a second{left}"

    def _reached(self, phase: str) -> list[str]:
        """Return a line when the last of all ranks enters ``phase``."""
        when = {rank: s for (rank, entered), s in self.entered_s.items() if entered == phase}
        if len(when) < self.ranks:
            return []
        last, first_s = max(when, key=lambda rank: when[rank]), min(when.values())
        behind_s = when[last] - first_s
        lag = f", rank {last} {seconds(behind_s)} after the first" if behind_s > LAGGING_S else ""
        all_ranks = plural(self.ranks, "rank")
        said = f"{all_ranks} {phase}" if phase in _POINTS else f"{phase} begins on {all_ranks}"
        return [f"{when[last]:6.1f} s  {said}{lag}"]


class Progress(AbstractContextManager["Progress"]):
    """Give ``watch`` to a run; between enter and exit the console shows what it says."""

    def __init__(
        self,
        console: Console,
        specs: Sequence[WorkerSpec],
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._console, self._specs, self._clock = console, specs, clock
        self._started_s = clock()
        self._board = Board(len(specs))
        self._live = (
            Live(self, console=console, transient=True, refresh_per_second=8)
            if console.is_terminal
            else nullcontext()
        )

    def __enter__(self) -> Progress:
        self._live.__enter__()
        return self

    def __exit__(self, *raised: object) -> None:
        self._live.__exit__(None, None, None)

    def watch(self, message: Message | Restarted | Resumed) -> None:
        """Take in a message of a rank, or where all of them begin."""
        now_s = self._clock() - self._started_s
        if isinstance(message, Restarted):
            self._board = Board(len(self._specs))
            self.say(f"{now_s:6.1f} s  restart {message.number}: {restart(message)}")
        elif isinstance(message, Resumed):
            found = plural(message.batches, "verified batch") if message.batches else "nothing"
            self.say(f"{now_s:6.1f} s  resume: {found} of an earlier run")
        else:
            for line in self._board.note(message, now_s):
                if not self._console.is_terminal:
                    self.say(line)

    def say(self, line: str) -> None:
        """Show a line, above the table if there is one."""
        self._console.print(line, markup=False, highlight=False, soft_wrap=True)

    def __rich__(self) -> Group:
        """Draw a row for each rank, a column for each phase, and how far the batches are."""
        table = Table(box=None, pad_edge=False)
        for title in ("rank", "device", *PHASES[1:-1]):
            table.add_column(title, justify="right" if title == "rank" else "left")
        now_s = self._clock() - self._started_s
        for spec in self._specs:
            place = f"{spec.server_id}:{spec.device_id}"
            cells = [self._cell(spec.rank, phase, now_s) for phase in PHASES[1:-1]]
            table.add_row(str(spec.rank), place, *cells)
        board = self._board
        bars = [ProgressBar(board.total, board.batches, width=40)] if board.total else []
        return Group(table, *bars, Text(f"{now_s:.0f} s, {board.pace(now_s)}", style="dim"))

    def _cell(self, rank: int, phase: str, now_s: float) -> Text:
        entered_s = self._board.entered_s.get((rank, phase))
        if entered_s is None:
            return Text("·", style="dim")
        if self._board.phase[rank] != phase:
            following = PHASES[PHASES.index(phase) + 1 :]
            left_s = min(s for p in following if (s := self._board.entered_s.get((rank, p))))
            return Text(seconds(left_s - entered_s), style="green")
        if self._board.ended.get(rank) == "failed":
            return Text("failed", style="bold red")
        told = self._board.fetched.get(rank) if phase == "load" else None
        share = f" {100 * told.nbytes // max(told.total, 1)}%" if told else ""
        return Text(seconds(now_s - entered_s) + share, style="yellow")
