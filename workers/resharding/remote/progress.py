"""Tell how far a fetch is, when it takes long, in lines on standard error (of a rank: its log)."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable

EVERY_S = 5.0


class Progress:
    """What was fetched of a file since the beginning."""

    def __init__(
        self, name: str, total: int, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._name, self._total, self._clock = name, total, clock
        self._done = 0
        self._started_s = self._told_s = clock()

    def add(self, nbytes: int) -> None:
        """Note that some more bytes are here."""
        self._done += nbytes
        now_s = self._clock()
        if now_s - self._told_s >= EVERY_S:
            self._told_s = now_s
            rate = self._done / (now_s - self._started_s)
            of = f"{self._done / 1e6:,.0f} of {self._total / 1e6:,.0f} MB"
            self._tell(f"{of}, {rate / 1e6:,.1f} MB/s")

    def restart(self, total: int, reason: str = "") -> None:
        """Begin anew, with another number of bytes to fetch."""
        self._done, self._total = 0, total
        if reason:
            self._tell(f"{reason} ({total / 1e6:,.1f} MB)")

    def _tell(self, line: str) -> None:
        print(f"{self._name}: {line}", file=sys.stderr, flush=True)
