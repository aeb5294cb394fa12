"""Say what the runner asks of whatever starts the ranks; never how they start."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

from launcher.events import EngineLost, Exited
from launcher.site import Site, Where
from workers.spec import WorkerSpec

if TYPE_CHECKING:
    import zmq


class Engine(Protocol):
    """The ranks' processes. They are starting when the engine exists."""

    @property
    def sources(self) -> Sequence[int | zmq.Socket[bytes]]:
        """What is readable when ``receive`` has something; file descriptors and sockets."""

    def receive(self, at_s: float) -> list[Exited | EngineLost]:
        """Return what became of processes, noticed at ``at_s``; never blocks."""

    def send_signal(self, rank: int, number: int) -> None:
        """Send a signal to the process of a rank; not an error when it has ended."""

    def close(self) -> None:
        """End what is left, at once, and return when it is gone."""


class Starter(Protocol):
    """Knows how to bring ranks to life, as often as it is asked to."""

    @property
    def waits(self) -> bool:
        """Whether ``sites`` may have to wait for other hosts."""

    @property
    def collector(self) -> Where:
        """Where the collector must listen to be heard by the ranks."""

    def sites(self, ranks: int, limit_s: float) -> Sequence[Site]:
        """Return where the ranks of a job will start.

        Raises:
            LauncherError: not all of them came in time.
        """

    def get_ready(self, spec: WorkerSpec) -> None:
        """Begin with what can be done before ``start``, which goes on from it.

        Args:
            spec: of one of the ranks.
        """

    def start(self, specs: Sequence[WorkerSpec], log: Path) -> Engine:
        """Start the ranks; ``log`` is for what their engine itself has to say."""

    def conclude(self, exit_code: int) -> None:
        """Take note of what the job came to; whatever starts ranks elsewhere is told on exit."""
