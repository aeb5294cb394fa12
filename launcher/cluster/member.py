"""Keep ranks on this host for the head of the job, and end when it says so or is gone."""

from __future__ import annotations

import signal
import time
from contextlib import ExitStack, closing
from dataclasses import replace
from pathlib import Path
from typing import Any

import zmq

from launcher.cluster.address import HeadAddress
from launcher.cluster.errors import HeadLostError
from launcher.cluster.line import MemberLine, Said, endpoint
from launcher.curve import Keys
from launcher.engines.local import ForkServer, LocalEngine
from launcher.events import EngineLost, Exited
from launcher.interrupts import Interrupts
from launcher.site import Site
from workers.spec import WorkerSpec


class Dismissed(Exception):
    """The head has let this member go."""

    def __init__(self, exit_code: int, why: str) -> None:
        super().__init__(exit_code, why)
        self.exit_code, self.why = exit_code, why


def serve(
    head: HeadAddress, address: str, name: str, site: Site, job: dict[str, Any]
) -> Dismissed:
    """Do what the head asks until it lets this member go; leave no process behind.

    Args:
        address: that of the head's addresses which this host reaches.
        name: by which the head expects this member.
        job: what the head's must be like; may be empty.

    Raises:
        HeadLostError: the head is gone, or does not know our key.
    """
    with ExitStack() as stack:
        interrupts = stack.enter_context(Interrupts())
        keys = Keys.shared(head.secret)
        line = stack.enter_context(closing(MemberLine(keys, address, head.port)))
        member = stack.enter_context(closing(_Member(line, address)))
        line.send(say="hello", name=name, site=site.to_dict(), job=job)
        told = False
        while True:
            member.wait(interrupts)
            for words in line.receive():
                try:
                    member.obey(words)
                except Dismissed as dismissed:
                    return dismissed
            member.report()
            for number in interrupts.receive():
                if told:  # whoever sent it does not want to wait
                    return Dismissed(128 + number, "")
                text = f"the launcher there was told to end by {signal.Signals(number).name}"
                line.send(say="interrupted", signal=number, text=text)
                told = True


class _Member:
    """The ranks that the head has asked for."""

    def __init__(self, line: MemberLine, address: str) -> None:
        self._line, self._address = line, address
        self._engine: LocalEngine | None = None

    def wait(self, interrupts: Interrupts) -> None:
        """Return when somebody has news."""
        poller = zmq.Poller()
        ranks = self._engine.sources if self._engine else ()
        for source in (*self._line.sources, *ranks, interrupts.fileno()):
            poller.register(source, zmq.POLLIN)
        poller.poll()

    def obey(self, words: Said) -> None:
        match words:
            case {"do": "start", "specs": texts, "log": log}:
                self._start([WorkerSpec.from_json(text) for text in texts], Path(log))
            case {"do": "signal", "rank": rank, "signal": number} if self._engine:
                self._engine.send_signal(rank, number)
            case {"do": "stop"}:
                self.close()
                self._line.send(say="stopped")
            case {"do": "leave", "exit_code": code, "why": why}:
                raise Dismissed(code, why)
            case {"say": "gone"}:
                raise HeadLostError(self._address, self._line.known)

    def report(self) -> None:
        """Tell the head what became of ranks."""
        for event in self._engine.receive(time.monotonic()) if self._engine else ():
            match event:
                case Exited(rank, code, number):
                    self._line.send(say="exited", rank=rank, exit_code=code, signal=number)
                case EngineLost(code, message):
                    self._line.send(say="lost", exit_code=code, message=message)
                    self.close()

    def close(self) -> None:
        if self._engine is not None:
            self._engine.close()
        self._engine = None

    def _start(self, specs: list[WorkerSpec], log: Path) -> None:
        own = log.with_name(f"{log.stem}.rank_{specs[0].rank}{log.suffix}")
        try:
            own.parent.mkdir(parents=True, exist_ok=True)
            specs = [self._reaching(spec) for spec in specs]
            self._engine = LocalEngine(specs, ForkServer(specs[0]), own)
        except OSError as error:
            self._line.send(say="lost", exit_code=1, message=f"cannot start ranks: {error}")

    def _reaching(self, spec: WorkerSpec) -> WorkerSpec:
        """Return the spec with the collector as this host reaches it: where the head is."""
        assert spec.collector is not None  # no rank starts without
        port = spec.collector.endpoint.rpartition(":")[2]
        there = endpoint(self._address, port)
        return replace(spec, collector=replace(spec.collector, endpoint=there))
