"""Decide who is told to end, when, and which failure is to blame. No process and no clock here.

Events go in, each with the moment at which it was noticed; signals to send come out. The
first failure is the root cause, and everything after it is a consequence. One kind of failure
names its own cause: the echo, "my peer is gone". It is to blame only when nothing else has
shown up within the grace period.
"""

from __future__ import annotations

import math
import signal
from collections.abc import Iterable
from signal import Signals

from launcher.agreement import VerificationError
from launcher.errors import DEADLINE_EXIT_CODE, InvalidInputError
from launcher.events import (
    Cause,
    EngineLost,
    Event,
    Exited,
    Heard,
    Interrupted,
    ResultRefused,
    Send,
    Tick,
)
from launcher.outcome import Limits
from launcher.text import name_ranks, signal_name
from workers.protocol import (
    PHASES,
    Done,
    Failed,
    Message,
    PhaseEntered,
    Prediction,
    PredictionDigest,
    Waiting,
)

DEADLINE, INTERRUPTED = "Deadline", "Interrupted"
_FINAL = (InvalidInputError.exit_code, VerificationError.exit_code, DEADLINE_EXIT_CODE)
HOLD_S = 0.25  # for ranks that failed at the same time: the first of them may be heard last
DUMP_S = 1.0  # for hung ranks to write their stacks, before they are told to end


class Supervision:
    """The state of a run as far as its end is concerned."""

    def __init__(
        self, ranks: Iterable[int], limits: Limits, started_at_s: float, late_s: float = 0.0
    ) -> None:
        """Begin with ranks that are starting.

        Args:
            late_s: what earlier attempts took of the time for the whole run.
        """
        self.cause: Cause | None = None
        self._ranks = frozenset(ranks)
        self._limits = limits
        self._running = set(self._ranks)
        self._clean: set[int] = set()  # said done, and left with exit code 0
        self._last_word: dict[int, Done | Failed] = {}
        self._phase = dict.fromkeys(self._ranks, PHASES[0])
        self._batches = dict.fromkeys(self._ranks, 0)
        self._progress_s = dict.fromkeys(self._ranks, started_at_s)
        self._heard_any = False  # else no rank has got so far that it can show its stacks
        self._cause_s = -math.inf  # when the rank that is to blame failed
        self._echo: Failed | None = None  # the first of them
        self._run_is_late = False  # which deadline has passed: that of the run, or of a phase
        self._waits: dict[int, Waiting] = {}  # what ranks said when it had passed
        # When something falls due, unless the run has ended before:
        self._total_s = started_at_s + limits.total_s - late_s
        self._blame_echo_s = math.inf
        self._terminate_s = math.inf
        self._kill_s = math.inf
        self._give_up_s = math.inf

    @property
    def finished(self) -> bool:
        """Whether there is nothing left to wait for."""
        return not self._running

    @property
    def followers(self) -> int:
        """How many other ranks failed after the cause, or had to be stopped."""
        if self.cause is None:
            return 0
        return len(self._ranks - self._clean - {self.cause.rank})

    @property
    def alike(self) -> tuple[int, ...]:
        """The other ranks that failed with the very same words."""
        cause = self.cause
        if cause is None or cause.rank is None:
            return ()
        return tuple(
            rank
            for rank, word in sorted(self._last_word.items())
            if isinstance(word, Failed)
            and rank != cause.rank
            and (word.kind, word.message) == (cause.kind, cause.message)
        )

    @property
    def next_due_s(self) -> float:
        """When a Tick will have something to say, if no other event comes before."""
        if self.cause is not None:
            return min(self._terminate_s, self._kill_s, self._give_up_s)
        oldest_s = min((self._progress_s[rank] for rank in self._running), default=math.inf)
        return min(self._total_s, self._blame_echo_s, oldest_s + self._limits.phase_s)

    def handle(self, event: Event) -> list[Send]:
        """Return the signals that the shell must send, in order."""
        match event:
            case Heard(message):
                actions = self._heard(message, event.at_s)
            case Exited():
                actions = self._exited(event)
            case EngineLost(exit_code, message):
                self._running -= self._ranks if event.ranks is None else event.ranks
                cause = Cause(
                    kind=event.kind,
                    message=message,
                    exit_code=exit_code,
                    worth_retrying=event.worth_retrying,
                )
                actions = self._fail(cause, event.at_s)
            case Interrupted(number):
                actions = self._interrupted(number, event.at_s)
            case ResultRefused(rank, kind, message, exit_code):
                cause = Cause(rank=rank, kind=kind, message=message, exit_code=exit_code)
                actions = self._fail(cause, event.at_s)
            case Tick():
                actions = []
        return actions + self._due(event.at_s)

    def _heard(self, message: Message, at_s: float) -> list[Send]:
        rank = message.rank
        self._heard_any = True
        if isinstance(message, Waiting):
            return self._waiting(message)
        self._progress_s[rank] = at_s
        match message:
            case PhaseEntered(_, phase):
                self._phase[rank] = phase
            case Prediction() | PredictionDigest():
                self._batches[rank] += 1
            case Done():
                self._last_word[rank] = message
            case Failed():
                self._last_word[rank] = message
                self._phase[rank] = message.phase
                if message.echo_of is None:
                    failed_s = at_s if message.at_s is None else message.at_s
                    return self._fail(_cause_of(message), at_s, failed_s)
                if self._echo is None:
                    self._echo = message
                    self._blame_echo_s = at_s + self._limits.grace_s
        return self._explain_echo(at_s)

    def _explain_echo(self, at_s: float) -> list[Send]:
        """Blame a peer that was missed because it was done: it had fewer batches."""
        if self._echo is None or self._echo.echo_of is None:
            return []
        last_word = self._last_word.get(self._echo.echo_of)
        if not isinstance(last_word, Done):
            return []
        cause = Cause(
            rank=last_word.rank,
            phase="predict",
            kind=VerificationError.__name__,
            message=f"was done after {last_word.report.batches} batches while rank"
            f" {self._echo.rank} still waited for it; does every rank get the same data?",
            exit_code=VerificationError.exit_code,
        )
        return self._fail(cause, at_s)

    def _exited(self, event: Exited) -> list[Send]:
        rank = event.rank
        self._running.discard(rank)
        last_word = self._last_word.get(rank)
        if isinstance(last_word, Done) and event.exit_code == event.signal == 0:
            self._clean.add(rank)
        elif not isinstance(last_word, Failed):
            return self._fail(self._cause_of_exit(event), event.at_s, event.at_s)
        if not self._running and self._echo is not None:
            return self._fail(_cause_of(self._echo), event.at_s)
        return []

    def _interrupted(self, number: int, at_s: float) -> list[Send]:
        if self.cause is not None:
            return self._kill(at_s)  # whoever sent it does not want to wait
        name = Signals(number).name
        message = f"the launcher was told to end by {name}"
        cause = Cause(kind=INTERRUPTED, message=message, exit_code=128 + number)
        return self._fail(cause, at_s)

    def _fail(self, cause: Cause, at_s: float, failed_s: float | None = None) -> list[Send]:
        """Blame ``cause``, unless another one came first, and end all ranks.

        Args:
            failed_s: when a rank failed; others that did so before may not have been heard yet.
        """
        if self.cause is None:
            self.cause = cause
            if failed_s is None:
                return self._terminate(at_s)
            self._cause_s, self._terminate_s = failed_s, at_s + HOLD_S
        elif failed_s is not None and failed_s < self._cause_s and self._terminate_s < math.inf:
            self.cause, self._cause_s = cause, failed_s
        return []

    def _terminate(self, at_s: float) -> list[Send]:
        self._terminate_s = math.inf
        self._kill_s = at_s + self._limits.grace_s
        # A rank that has said its last word is already on its way out.
        return self._send(signal.SIGTERM, self._running - self._last_word.keys())

    def _kill(self, at_s: float) -> list[Send]:
        self._terminate_s = self._kill_s = math.inf
        self._give_up_s = at_s + self._limits.grace_s
        return self._send(signal.SIGKILL, self._running)

    @staticmethod
    def _send(number: Signals, ranks: Iterable[int]) -> list[Send]:
        return [Send(rank, number) for rank in sorted(ranks)]

    def _due(self, at_s: float) -> list[Send]:
        """Do what the time asks for."""
        if self.finished or at_s < self.next_due_s:
            return []
        if self.cause is None:
            if at_s >= self._blame_echo_s and self._echo is not None:
                return self._fail(_cause_of(self._echo), at_s)
            return self._deadline(at_s)
        if at_s >= self._give_up_s:
            self._running.clear()  # not even SIGKILL ends them: stuck in the kernel
            return []
        return self._kill(at_s) if at_s >= self._kill_s else self._terminate(at_s)

    def _deadline(self, at_s: float) -> list[Send]:
        """Ask the ranks what they wait for, and hear them out before they are told to end."""
        self._terminate_s = at_s + (DUMP_S if self._heard_any else 0.0)
        self._run_is_late = at_s >= self._total_s
        self.cause = self._overdue()
        return self._send(signal.SIGUSR1, self._running)

    def _waiting(self, message: Waiting) -> list[Send]:
        """A rank that waits for another one is not to blame for a deadline."""
        self._waits[message.rank] = message
        if self.cause is not None and self.cause.kind == DEADLINE and self._terminate_s < math.inf:
            self.cause = self._overdue()
        return []

    def _overdue(self) -> Cause:
        """Blame the ranks that are furthest behind and wait for nobody: others wait for them."""
        progress = {
            rank: (PHASES.index(self._phase[rank]), self._batches[rank]) for rank in self._running
        }
        behind = sorted(r for r in progress if progress[r] == min(progress.values()))
        stuck = [rank for rank in behind if rank not in self._waits] or behind
        phase = self._phase[stuck[0]]
        message = f"{name_ranks(stuck)} did not get on in phase {phase}"
        if self._run_is_late:
            message = f"the run took longer than {self._limits.total_s:g} s; {message}"
        else:
            message += f" for {self._limits.phase_s:g} s"
        for peer, doing in sorted({(wait.peer, wait.doing) for wait in self._waits.values()}):
            ranks = [w.rank for w in self._waits.values() if (w.peer, w.doing) == (peer, doing)]
            message += f"; {name_ranks(sorted(ranks))} waited for rank {peer} in {doing}"
        return Cause(
            rank=stuck[0] if len(stuck) == 1 else None,
            phase=phase,
            kind=DEADLINE,
            message=f"{message}; the log holds the stacks",
            exit_code=DEADLINE_EXIT_CODE,
        )

    def _cause_of_exit(self, event: Exited) -> Cause:
        said_done = event.rank in self._last_word
        when = "after it was done" if said_done else "before it was done"
        kind, exit_code = "Exited", event.exit_code or 1
        message = f"left with exit code {event.exit_code} {when}, without a word why"
        if event.signal:
            name, exit_code = signal_name(event.signal), 128 + event.signal
            kind, message = name, f"ended by {name} ({signal.strsignal(event.signal)}) {when}"
            if event.signal == signal.SIGKILL:  # ours come only when there is a cause already
                message += (
                    "; the launcher did not send it: likely out of memory (see dmesg),"
                    " or killed from outside"
                )
        return Cause(
            rank=event.rank,
            phase=self._phase[event.rank],
            kind=kind,
            message=message,
            exit_code=exit_code,
            worth_retrying=True,
        )


def _cause_of(failed: Failed) -> Cause:
    return Cause(
        rank=failed.rank,
        phase=failed.phase,
        kind=failed.kind,
        message=failed.message,
        traceback=failed.traceback,
        exit_code=failed.exit_code or 1,
        worth_retrying=failed.exit_code not in _FINAL,
    )
