"""Show how far each rank is while a run goes on: a live table on a terminal, lines elsewhere."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, field

from rich.console import Console
from rich.live import Live
from rich.table import Table
from rich.text import Text

from launcher.text import plural, seconds
from workers.protocol import PHASES, Done, Failed, Message, PhaseEntered, Prediction
from workers.spec import WorkerSpec

LAGGING_S = 1.0  # a rank that reaches a phase this long after the first one is named


@dataclass
class Board:
    """What is known of every rank. Time comes in with each message; there is no clock here."""

    ranks: int
    entered_s: dict[tuple[int, str], float] = field(default_factory=dict)  # (rank, phase) -> when
    phase: dict[int, str] = field(default_factory=dict)  # of each rank, the latest
    ended: dict[int, str] = field(default_factory=dict)  # rank -> "done" or "failed"
    batches: int = 0  # that the owner of the output has sent

    def note(self, message: Message, at_s: float) -> list[str]:
        """Take in a message; return the lines it is worth."""
        match message:
            case PhaseEntered(rank, phase):
                self.phase[rank] = phase
                self.entered_s[rank, phase] = at_s
                return self._reached(phase)
            case Prediction(batch=batch):
                self.batches = batch + 1
            case Done(rank):
                self.ended[rank] = "done"
            case Failed(rank, phase, kind, text):
                self.ended[rank] = "failed"
                first_line = text.strip().partition("\n")[0]
                return [f"{at_s:6.1f} s  rank {rank} failed in {phase}: {kind}: {first_line}"]
        return []

    def _reached(self, phase: str) -> list[str]:
        """Return a line when the last of all ranks enters ``phase``."""
        when = {rank: s for (rank, entered), s in self.entered_s.items() if entered == phase}
        if len(when) < self.ranks:
            return []
        last, first_s = max(when, key=lambda rank: when[rank]), min(when.values())
        behind_s = when[last] - first_s
        lag = f", rank {last} {seconds(behind_s)} after the first" if behind_s > LAGGING_S else ""
        return [f"{when[last]:6.1f} s  {phase:<8} {self.ranks} of {self.ranks} ranks{lag}"]


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

    def watch(self, message: Message) -> None:
        """Take in a message of a rank."""
        lines = self._board.note(message, self._clock() - self._started_s)
        if not self._console.is_terminal:
            for line in lines:
                self._console.print(line, markup=False, highlight=False, soft_wrap=True)

    def __rich__(self) -> Table:
        """Draw the live table: a row for each rank, a column for each phase."""
        table = Table(box=None, pad_edge=False)
        for title in ("rank", "device", *PHASES[1:-1]):
            table.add_column(title, justify="right" if title == "rank" else "left")
        now_s = self._clock() - self._started_s
        for spec in self._specs:
            place = f"{spec.server_id}:{spec.device_id}"
            cells = [self._cell(spec.rank, phase, now_s) for phase in PHASES[1:-1]]
            table.add_row(str(spec.rank), place, *cells)
        batches = plural(self._board.batches, "batch")
        table.caption = f"{now_s:.0f} s, {batches} predicted"
        return table

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
        return Text(seconds(now_s - entered_s), style="yellow")
