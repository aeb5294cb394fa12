"""Decide which engine a job gets, and lead it."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import closing, contextmanager
from dataclasses import replace

from launcher.engines.engine import Starter
from launcher.engines.local import LocalStarter
from launcher.errors import HostError, JobError
from launcher.host import Host, look_around
from launcher.job import Job
from launcher.own_server import find_own_server
from launcher.placement import count_ranks
from launcher.rank_table.table import RankTable
from launcher.site import Site
from launcher.slot import find_slot
from workers.spec import WorkerSpec


def choose_engine(job: Job, table: RankTable | None, host: Host) -> str:
    """Return the engine of a job; simulated ranks of several servers fit on one host."""
    if job.engine != "auto":
        return job.engine
    here = host.gpu_devices if job.device == "gpu" else host.ascend_devices
    if table is not None and len(table.servers) > 1 and job.device != "cpu" and here:
        return "hosts"
    return "local"


def own_server(job: Job, table: RankTable | None, environment: Mapping[str, str]) -> str | None:
    """Return which server of the rank table this host is, if the job runs on several hosts.

    Raises:
        JobError: the job runs on several hosts but has no rank table of several servers.
        HostError: this host is none of them.
    """
    host = look_around()
    if choose_engine(job, table, host) != "hosts":
        return None
    if table is None or len(table.servers) < 2:
        raise JobError.about("engine", "hosts, but no rank table names several", "--rank-table")
    return find_own_server(table, host, environment, job.node)


@contextmanager
def leading(
    job: Job, table: RankTable | None, environment: Mapping[str, str]
) -> Iterator[Starter]:
    """Return what starts the ranks of a job that this process leads; ends it all on exit."""
    slot = find_slot(environment) if job.engine not in ("local", "hosts") else None
    if slot is not None:
        what = f"this process is rank {slot.rank} of {slot.source}, which leads the job from rank 0"
        raise HostError(what, "start python -m launcher there, or choose the engine local")
    server = own_server(job, table, environment)
    if server is not None and table is not None:
        if server != table.servers[0]:
            what = f"this host is {server}, and {table.servers[0]} leads the job"
            raise HostError(what, "start python -m launcher here, and this program there")
        from launcher.cluster import hosts  # of no use to a job on one host

        with hosts.leading(job, table, server) as head:
            yield head
    elif job.engine in ("mpi", "slurm"):
        from launcher.cluster.started import leading_slots

        with leading_slots(job, count_ranks(job, table), environment) as head:
            yield head
    else:
        with closing(LocalStarter(environment)) as starter:
            yield starter


class Planned(LocalStarter):
    """Knows where ranks would start, as if all hosts were like this one. Starts nothing."""

    def __init__(
        self, job: Job, table: RankTable | None, environment: Mapping[str, str]
    ) -> None:
        super().__init__(environment)
        self._job, self._table, self._environment = job, table, environment

    def get_ready(self, spec: WorkerSpec) -> None:
        """Start nothing."""

    def sites(self, ranks: int, limit_s: float) -> list[Site]:
        (here,) = super().sites(ranks, limit_s)
        if self._table is None or choose_engine(self._job, self._table, here.host) != "hosts":
            return [here]
        return [
            replace(
                here,
                ranks=tuple(device.rank for device in devices),
                host=replace(here.host, name=server, machine=server),
            )
            for server, devices in self._table.devices_by_server().items()
        ]
