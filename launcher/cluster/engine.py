"""Be the ``Engine`` of ranks on several hosts: pass on what is asked, tell what is heard."""

from __future__ import annotations

import time
from collections import defaultdict
from collections.abc import Mapping, Sequence
from pathlib import Path

import zmq

from launcher.cluster.line import SILENCE_S, HeadLine, Said
from launcher.cluster.outer import Outer
from launcher.engines.engine import Engine
from launcher.events import EngineLost, Exited
from launcher.text import name_ranks
from workers.spec import WorkerSpec

END_S = 15.0  # for members to end their ranks; they need milliseconds
OUTER_S = 0.5  # for mpirun to be gone, if that is why its slots were told to end


class ClusterEngine:
    """Ranks that members keep for us, and perhaps some of our own."""

    def __init__(
        self,
        line: HeadLine,
        homes: Mapping[int, bytes],
        names: Mapping[bytes, str],
        own: Engine | None,
        outer: Outer | None,
    ) -> None:
        """Start nothing yet but what ``own`` has started.

        Args:
            homes: which member keeps a rank; ``own`` keeps those that have none.
            names: of all members, also of those that keep no rank.
        """
        self._line, self._homes, self._names = line, homes, names
        self._own, self._outer = own, outer
        self._busy: set[bytes] = set()  # members that were told to start ranks

    @property
    def sources(self) -> Sequence[int | zmq.Socket[bytes]]:
        own = self._own.sources if self._own else ()
        return (*self._line.sources, *own, *(self._outer.sources if self._outer else ()))

    def start(self, specs: Sequence[WorkerSpec], log: Path) -> None:
        """Tell each member which ranks to start."""
        by_home: dict[bytes, list[str]] = defaultdict(list)
        for spec in specs:
            by_home[self._homes[spec.rank]].append(spec.to_json())
        for home, texts in by_home.items():
            self._line.send(home, do="start", specs=texts, log=str(log))
            self._busy.add(home)

    def receive(self, at_s: float) -> list[Exited | EngineLost]:
        events: list[Exited | EngineLost] = []
        # First of all: the slots of an mpirun that has been killed are told to end, and say so.
        if self._outer is not None and (failure := self._outer.failure()) is not None:
            events.append(EngineLost(failure.exit_code, str(failure), at_s))
        if self._own is not None:
            events += self._own.receive(at_s)
        for member, words in self._line.receive():
            if (event := self._event(member, words, at_s)) is not None:
                events.append(event)
        return events

    def send_signal(self, rank: int, number: int) -> None:
        if rank in self._homes:
            self._line.send(self._homes[rank], do="signal", rank=rank, signal=int(number))
        elif self._own is not None:
            self._own.send_signal(rank, number)

    def close(self) -> None:
        """End all ranks that are left; return when the members have said that they are gone."""
        for member in self._busy:
            self._line.send(member, do="stop")
        if self._own is not None:
            self._own.close()
        poller = zmq.Poller()
        for source in self._line.sources:
            poller.register(source, zmq.POLLIN)
        deadline_s = time.monotonic() + END_S
        while self._busy and time.monotonic() < deadline_s:
            poller.poll(int((deadline_s - time.monotonic()) * 1000))
            for member, words in self._line.receive():
                if words.get("say") in ("stopped", "gone"):
                    self._busy.discard(member)

    def _event(self, member: bytes, words: Said, at_s: float) -> Exited | EngineLost | None:
        name = self._names.get(member)
        ranks = frozenset(rank for rank, home in self._homes.items() if home == member)
        match words:
            case {"say": "exited", "rank": rank, "exit_code": code, "signal": number}:
                return Exited(rank, code, number, at_s)
            case {"say": "lost", "exit_code": code, "message": message}:
                return EngineLost(code, f"{name}: {message}", at_s, ranks)
            case {"say": "interrupted", "signal": number, "text": text}:
                # The kernel tells the slots of a killed mpirun before it can be waited for.
                outer = self._outer.failure(OUTER_S) if self._outer is not None else None
                if outer is not None:
                    return EngineLost(outer.exit_code, str(outer), at_s)
                # Its ranks live on until this process has decided what becomes of them.
                return EngineLost(128 + number, f"{name}: {text}", at_s, frozenset(), "Interrupted")
            case {"say": "gone"} if name is not None:
                self._busy.discard(member)
                kept = f", and with it {name_ranks(sorted(ranks))}" if ranks else ""
                why = f"it gave no sign of life for {SILENCE_S:g} s, or ended"
                message = f"{name} is gone{kept}: {why}"
                return EngineLost(1, message, at_s, ranks, "HostLost")
        return None
