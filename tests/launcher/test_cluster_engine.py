"""Whom the engine of several hosts blames for the end of its members."""

from __future__ import annotations

from typing import Any

from launcher.cluster.engine import ClusterEngine
from launcher.cluster.errors import OuterFailedError
from launcher.events import EngineLost

INTERRUPTED = {"say": "interrupted", "signal": 15, "text": "told to end by SIGTERM"}


class Line:
    """A line on which one member has said something."""

    sources = ()

    def receive(self) -> Any:
        return [(b"one", INTERRUPTED)]


class Outer:
    """An mpirun that was killed and ends a moment later, or that lives on."""

    sources = ()

    def __init__(self, dying: bool) -> None:
        self._dying = dying

    def failure(self, within_s: float = 0.0) -> OuterFailedError | None:
        gone = self._dying and within_s > 0
        return OuterFailedError("mpirun", 137, "without a word") if gone else None


def lost(outer: Any) -> EngineLost:
    line: Any = Line()
    engine = ClusterEngine(line, {1: b"one"}, {b"one": "the slot of rank 1"}, None, outer)
    (event,) = engine.receive(at_s=1.0)
    assert isinstance(event, EngineLost)
    return event


def test_an_mpirun_that_was_killed_is_to_blame_and_not_the_slots_that_die_with_it() -> None:
    event = lost(Outer(dying=True))
    assert event.exit_code == 137
    assert "mpirun left with exit code 137" in event.message


def test_a_slot_that_somebody_told_to_end_is_named_while_its_mpirun_lives() -> None:
    for outer in (Outer(dying=False), None):
        event = lost(outer)
        assert event.exit_code == 143
        assert event.message == "the slot of rank 1: told to end by SIGTERM"
