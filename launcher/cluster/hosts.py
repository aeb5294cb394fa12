"""Be one of the hosts of a rank table, on each of which the same command was started."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from launcher.cluster.address import HeadAddress, find_head
from launcher.cluster.head import Head
from launcher.cluster.line import HeadLine
from launcher.cluster.member import serve
from launcher.curve import Keys
from launcher.host import look_around
from launcher.job import Job
from launcher.rank_table.table import RankTable
from launcher.secret import read_secret
from launcher.site import Site, Where
from launcher.streams import tell

PORT = 29177  # of the head, unless the job names another; the collector has the next one
# What may differ from host to host, or is compared by its content
_OF_THE_HOST = {"rank_table", "cluster_key_file", "node", "output", "labels"}


@contextmanager
def leading(job: Job, table: RankTable, server: str) -> Iterator[Head]:
    """Gather the other hosts' launchers on the host of rank 0, and let them go in the end.

    Raises:
        LauncherError: there is no key, or the port is taken.
    """
    port, secret = job.port or PORT, read_secret(job.cluster_key_file, os.environ)
    ranks = {name: _ranks(table, name) for name in table.servers}
    own = Site(ranks=ranks.pop(server), host=look_around(), environment=dict(os.environ))
    tell(f"this host is {server} and leads; waiting for {', '.join(ranks)} at port {port}")
    line, collector = HeadLine(Keys.shared(secret), port), Where(listen="*", port=port + 1)
    with Head(line, ranks, own, tell, collector=collector, job=_comparable(job)) as head:
        yield head


def follow(job: Job, table: RankTable, server: str) -> int:
    """Keep the ranks of another host than rank 0's; return the exit code of the whole job."""
    port, secret = job.port or PORT, read_secret(job.cluster_key_file, os.environ)
    first = table.servers[0]
    names = (*table.aliases.get(first, ()), first)
    known = HeadAddress(addresses=names, port=port, secret=secret)
    tell(f"this host is {server}; {first} leads")
    where = f"{' and '.join(names)}, port {port}: is the same command running there?"
    head, address = find_head(lambda: known, where, job.phase_timeout, tell)
    site = Site(
        ranks=_ranks(table, server),
        host=look_around(),
        environment=dict(os.environ),
        rank_table=str(job.rank_table or ""),
    )
    end = serve(head, address, server, site, _comparable(job))
    if end.exit_code:
        tell(f"the job ended with exit code {end.exit_code}; {first} says why {end.why}".rstrip())
    return end.exit_code


def _ranks(table: RankTable, server: str) -> tuple[int, ...]:
    return tuple(device.rank for device in table.devices_by_server()[server])


def _comparable(job: Job) -> dict[str, Any]:
    """Return what must be the same on all hosts."""
    content = job.rank_table.read_bytes() if job.rank_table else b""
    digest = {"rank_table": hashlib.sha256(content).hexdigest()[:12]}
    return job.model_dump(mode="json", exclude=_OF_THE_HOST) | digest
