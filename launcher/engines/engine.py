"""Say what the runner asks of whatever starts the ranks; never how they start."""

from __future__ import annotations

from typing import Protocol

from launcher.events import EngineLost, Exited


class Engine(Protocol):
    """The ranks' processes. They are starting when the engine exists."""

    def fileno(self) -> int:
        """Return a file descriptor that is readable when ``receive`` has something."""

    def receive(self, at_s: float) -> list[Exited | EngineLost]:
        """Return what became of processes, noticed at ``at_s``."""

    def send_signal(self, rank: int, number: int) -> None:
        """Send a signal to the process of a rank; not an error when it has ended."""

    def close(self) -> None:
        """End what is left, at once, and return when it is gone."""
