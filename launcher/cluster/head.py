"""Gather the members of a job, and start ranks on their hosts as if these were one host."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from types import MappingProxyType, TracebackType
from typing import Any

import zmq

from launcher.cluster.engine import ClusterEngine
from launcher.cluster.errors import MemberLostError, MembersMissingError, OtherJobError
from launcher.cluster.homes import Member, choose_homes
from launcher.cluster.line import HeadLine, Said
from launcher.cluster.outer import Outer
from launcher.engines.local import PRELOAD, ForkServer, LocalEngine
from launcher.errors import JobError
from launcher.site import Site, Where
from workers.spec import WorkerSpec

PARTING_S = 10.0  # for members to leave; they need milliseconds
_TELL_S = 10.0


class Head:
    """Leads a job whose ranks start elsewhere too. A ``Starter`` and a context manager."""

    waits = True

    def __init__(
        self,
        line: HeadLine,
        expected: Mapping[str, tuple[int, ...]],
        own: Site | None,
        tell: Callable[[str], None],
        start_members: Callable[[], Outer] | None = None,
        collector: Where = Where(listen="*"),
        job: Mapping[str, Any] = MappingProxyType({}),
        all_have_come: Callable[[], None] = lambda: None,
    ) -> None:
        """Wait for nobody yet.

        Args:
            expected: name of each member -> its ranks.
            own: where the ranks of this process's host start, if it has any.
            start_members: calls mpirun or srun, if somebody else does not.
            collector: where it listens so that ranks of other hosts reach it.
            job: what those of the members must be like, where they have one.
            all_have_come: is called when that is so, or when nobody else is waited for.
        """
        self._line, self._expected, self._own = line, expected, own
        self._tell, self._start_members = tell, start_members
        self._outer: Outer | None = None
        self._members: dict[str, Member] = {}
        self._exit_code = 0  # what members leave with
        self._job, self.collector, self._all_have_come = job, collector, all_have_come

    @property
    def ranks(self) -> int:
        """How many ranks all of them have."""
        own = self._own.ranks if self._own else ()
        return len(own) + sum(map(len, self._expected.values()))

    def sites(self, ranks: int, limit_s: float) -> list[Site]:
        """Return where all ranks of the job start, once every member has come.

        Raises:
            JobError: the job has another number of ranks.
            MembersMissingError: the time is over.
            LauncherError: a member is gone again, or has come with another job.
        """
        if ranks != self.ranks:
            what = f"{ranks}, but {self.ranks} processes were started"
            raise JobError.about("ranks", what, "leave it out, or start as many")
        if self._start_members is not None:
            self._outer = self._start_members()
        deadline_s = time.monotonic() + limit_s
        next_line_s = time.monotonic() + _TELL_S
        while missing := sorted(self._expected.keys() - self._members.keys()):
            now_s = time.monotonic()
            if now_s >= deadline_s:
                raise MembersMissingError(missing, limit_s)
            if now_s >= next_line_s:
                some = f"{missing[0]}{' and others' if missing[1:] else ''}"
                self._tell(f"{len(missing)} of {len(self._expected)} have not come: {some}")
                next_line_s = now_s + _TELL_S
            self._poll(min(deadline_s, next_line_s) - now_s)
            if self._outer is not None:
                self._outer.check()
            for identity, words in self._line.receive():
                self._welcome(identity, words)
        self._all_have_come()
        own = [self._own] if self._own else []
        return own + [member.site for member in self._members.values()]

    def conclude(self, exit_code: int) -> None:
        """Take note of what the job came to: its members leave with it."""
        self._exit_code = exit_code

    def get_ready(self, spec: WorkerSpec) -> None:
        """Do nothing: which rank starts where is decided when they start."""

    def start(self, specs: Sequence[WorkerSpec], log: Path) -> ClusterEngine:
        """Start each rank on its host."""
        are_forks = specs[0].device in PRELOAD
        homes = choose_homes(self._members.values(), self._own, are_forks)
        at_home = [spec for spec in specs if spec.rank not in homes]
        engine = ClusterEngine(
            self._line,
            {rank: member.identity for rank, member in homes.items()},
            {member.identity: member.name for member in self._members.values()},
            LocalEngine(at_home, ForkServer(at_home[0]), log) if at_home else None,
            self._outer,
        )
        engine.start([spec for spec in specs if spec.rank in homes], log)
        return engine

    def _welcome(self, identity: bytes, words: Said) -> None:
        known = next((m for m in self._members.values() if m.identity == identity), None)
        match words:
            case {"say": "hello", "name": str(name), "site": site, "job": job}:
                if name not in self._expected or name in self._members:
                    why = f"{name} is none of the others' names, or has come already"
                    self._line.send(identity, do="leave", exit_code=2, why=why)
                    return
                ranks = self._expected[name]
                found = replace(Site.from_dict(site), ranks=ranks, is_remote=True)
                self._members[name] = Member(identity, name, found)
                for key in sorted(job.keys() & self._job.keys()):
                    if job[key] != self._job[key]:
                        raise OtherJobError(name, key, job[key], self._job[key])
            case {"say": "gone" | "interrupted" as what} if known is not None:
                if what == "gone":
                    del self._members[known.name]
                raise MemberLostError(known.name)

    def _poll(self, timeout_s: float) -> None:
        poller = zmq.Poller()
        for source in (*self._line.sources, *(self._outer.sources if self._outer else ())):
            poller.register(source, zmq.POLLIN)
        poller.poll(math.ceil(max(0.0, timeout_s) * 1000))

    def __enter__(self) -> Head:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if error is not None:
            self._exit_code = getattr(error, "exit_code", 1)
        self._part(str(error or ""))
        self._line.close()
        if self._outer is not None:
            self._outer.close()

    def _part(self, why: str) -> None:
        """Let all members go, and those too that come only now; return when they have gone."""
        deadline_s = time.monotonic() + PARTING_S
        staying = {member.identity for member in self._members.values()} & self._line.connected
        if self._start_members is None:
            staying |= self._stragglers(deadline_s)
        self._all_have_come()
        for identity in staying:
            self._line.send(identity, do="leave", exit_code=self._exit_code, why=why)
        while staying and time.monotonic() < deadline_s:
            self._poll(deadline_s - time.monotonic())
            staying -= {who for who, words in self._line.receive() if words.get("say") == "gone"}

    def _stragglers(self, deadline_s: float) -> set[bytes]:
        """Wait for those who have not come yet: nobody else would tell them that it is over."""
        missing = self._expected.keys() - self._members.keys()
        found: set[bytes] = set()
        while missing and time.monotonic() < deadline_s:
            self._poll(deadline_s - time.monotonic())
            for identity, words in self._line.receive():
                if words.get("say") == "hello" and words.get("name") in missing:
                    missing -= {words["name"]}
                    found.add(identity)
        return found & self._line.connected
