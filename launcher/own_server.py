"""Decide which server of a rank table this host is. Pure: what is known of the host is given.

Asked are, in this order, the user, RANK_ID (which names the pod where a cloud made the table), the
names and addresses of the host, and Slurm. The first that knows an answer gives it; one that knows
two is an error, never a pick. Name servers are not asked:
on many hosts they know the own name as 127.0.1.1.
"""

from __future__ import annotations

import ipaddress
from collections.abc import Iterable, Mapping

from launcher.errors import HostError
from launcher.host import Host
from launcher.rank_table.table import RankTable

SLURM_NAME = "SLURMD_NODENAME"
POD_NAME = "RANK_ID"


def find_own_server(
    table: RankTable, host: Host, environment: Mapping[str, str], node: str | None = None
) -> str:
    """Return the server_id of this host.

    Args:
        node: what the user calls it: a server_id, another name of the server, or its place in the
            order of the ranks, from 0.

    Raises:
        HostError: no server of the table is this host, or several may be; it lists them.
    """
    if node is not None:
        return _named_server(table, node)
    if len(table.servers) == 1:
        return table.servers[0]
    slurm_name, pod = environment.get(SLURM_NAME, ""), environment.get(POD_NAME, "")
    pod = "" if pod.isdecimal() else pod  # else it is a rank
    for names in ((pod,), (host.name, *host.addresses), (slurm_name,)):
        found = _matches(table, names)
        if len(found) > 1:
            candidates = "; ".join(f"{server} ({name})" for server, name in found.items())
            what = f"this host may be {len(found)} servers of the rank table: {candidates}"
            raise HostError(what, "say which with --node SERVER_ID")
        if found:
            return next(iter(found))
    known = ", ".join(filter(None, (host.name, *_telling(host.addresses), slurm_name)))
    what = f"this host ({known}) is none of the servers of the rank table: {_listed(table)}"
    raise HostError(what, "say which it is with --node SERVER_ID")


def _named_server(table: RankTable, node: str) -> str:
    found = _matches(table, (node,)) or {
        server: node for place, server in enumerate(table.servers) if str(place) == node
    }
    if len(found) != 1:
        what = f"--node {node} is {'more than one' if found else 'none'} of the servers"
        raise HostError(f"{what} of the rank table", f"known are {_listed(table)}")
    return next(iter(found))


def _matches(table: RankTable, names: Iterable[str]) -> dict[str, str]:
    """Return the servers that one of the names fits, each with that name.

    A name without its domain counts only where no server has the whole name.
    """
    own = _telling(names)
    for form in (_whole, _without_domain):
        forms = {form(name): name for name in own}
        found = {
            server: forms[form(known)]
            for server in table.servers
            for known in _telling((server, *table.aliases.get(server, ())))
            if form(known) in forms
        }
        if found:
            return found
    return {}


def _telling(names: Iterable[str]) -> list[str]:
    """Return the names that tell one host from another."""
    return [name for name in names if name not in ("", "localhost") and not _is_loopback(name)]


def _is_loopback(name: str) -> bool:
    address = _address(name)
    return address is not None and address.is_loopback


def _address(name: str) -> ipaddress.IPv4Address | ipaddress.IPv6Address | None:
    try:
        return ipaddress.ip_address(name)
    except ValueError:
        return None


def _whole(name: str) -> str:
    address = _address(name)
    return name.casefold() if address is None else str(address)


def _without_domain(name: str) -> str:
    return _whole(name) if _address(name) else name.casefold().partition(".")[0]


def _listed(table: RankTable) -> str:
    return ", ".join(
        " = ".join((server, *table.aliases.get(server, ()))) for server in table.servers
    )
