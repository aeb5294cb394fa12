"""Write down what happens in a run, and when: a JSON object a line, in a file that only grows.

What each line holds is a promise to programs that read it: docs/events.md. A disk that is full
ends the log, not the run.
"""

from __future__ import annotations

import json
import os
import time
from datetime import UTC, datetime
from pathlib import Path
from types import TracebackType
from typing import Any

from launcher.errors import reason_of
from launcher.events import (
    Cause,
    EngineLost,
    Event,
    Exited,
    Heard,
    Interrupted,
    ResultRefused,
    Send,
)
from launcher.text import signal_name
from workers.protocol import Done, Failed, Message, PhaseEntered, Waiting

_LONGEST = 2000  # characters of a message; the rest is in the log of the rank


class EventLog:
    """The file of one folder, open for one run. A context manager."""

    def __init__(self, path: Path) -> None:
        self.failure = ""  # why there is no more in it
        self._began_s = time.monotonic()
        self._file = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, 0o644)

    def write(self, event: str, at_s: float | None = None, **fields: Any) -> None:
        """Add a line; ``at_s`` is when it happened, if not now."""
        if self.failure:
            return
        since_s = (time.monotonic() if at_s is None else at_s) - self._began_s
        now = datetime.now(UTC).isoformat(timespec="milliseconds")
        line = {"time": now, "s": round(since_s, 4), "event": event} | fields
        try:
            os.write(self._file, json.dumps(line).encode() + b"\n")
        except OSError as error:
            self.failure = reason_of(error)

    def note(self, event: Event) -> None:
        """Add a line for what happened, if it is worth one."""
        match event:
            case Heard(message, at_s):
                self._note_message(message, at_s)
            case Exited(rank, exit_code, number, at_s):
                name = signal_name(number) if number else None
                self.write("exited", at_s, rank=rank, exit_code=exit_code, signal=name)
            case EngineLost(_, message, at_s, ranks, kind):
                which = None if ranks is None else sorted(ranks)
                self.write("engine_lost", at_s, kind=kind, message=message, ranks=which)
            case Interrupted(number, at_s):
                self.write("interrupted", at_s, signal=signal_name(number))
            case ResultRefused(rank, kind, message, _, at_s):
                self.write("refused", at_s, rank=rank, kind=kind, message=message[:_LONGEST])

    def note_sent(self, action: Send) -> None:
        self.write("signal_sent", rank=action.rank, signal=action.signal.name)

    def note_cause(self, cause: Cause) -> None:
        self.write(
            "cause",
            rank=cause.rank,
            phase=cause.phase,
            kind=cause.kind,
            message=cause.message[:_LONGEST],
            exit_code=cause.exit_code,
        )

    def _note_message(self, message: Message, at_s: float) -> None:
        match message:
            case PhaseEntered(rank, phase):
                self.write("phase", at_s, rank=rank, phase=phase)
            case Waiting(rank, peer, doing):
                self.write("waiting", at_s, rank=rank, peer=peer, doing=doing)
            case Failed(rank, phase, kind, text):
                what = {"phase": phase, "kind": kind, "message": text[:_LONGEST]}
                self.write("failed", at_s, rank=rank, exit_code=message.exit_code, **what)
            case Done(rank, report):
                self.write("done", at_s, rank=rank, batches=report.batches)

    def __enter__(self) -> EventLog:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        os.close(self._file)
