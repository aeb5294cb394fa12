"""Make one rank table of the tables of several servers. Pure.

Servers are numbered in the order of their ids as texts, which is what MindSpore wants and what HCCL
does itself where it numbers ranks; on a server, ranks keep their order.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from launcher.errors import Problem, RankTableError
from launcher.rank_table.finding import repeats

GROUPS = {"super_pod_list": "super_pod_id", "cluster_list": "cluster_id"}
COUNTED = ("server_count", "server_list", *GROUPS)


def merge_tables(documents: Mapping[str, Mapping[str, Any]]) -> dict[str, Any]:
    """Return one document that holds all servers of ``documents``.

    Args:
        documents: valid documents of version 1.0 or 1.2 with a server_list, by source.

    Raises:
        RankTableError: a server or an address comes twice, or the tables contradict each other.
    """
    _refuse_repeats(documents)
    servers = [server for document in documents.values() for server in document["server_list"]]
    common = _common_keys(documents)
    status = common.pop("status")
    merged = {"version": common.pop("version"), "server_count": str(len(servers))}
    merged["server_list"] = _numbered(sorted(servers, key=lambda server: str(server["server_id"])))
    for key, name in GROUPS.items():
        groups = [group for document in documents.values() for group in document.get(key) or ()]
        if groups:
            merged[key] = _merged_groups(groups, name)
    return {**merged, **common, "status": status}


def _numbered(servers: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """Return servers whose ranks are counted anew, everything else as it was."""
    numbered, first = [], 0
    for server in servers:
        devices = sorted(server["device"], key=lambda device: int(device["rank_id"]))
        ranks = [{**device, "rank_id": str(first + n)} for n, device in enumerate(devices)]
        numbered.append({**server, "device": ranks})
        first += len(devices)
    return numbered


def _merged_groups(groups: Sequence[Mapping[str, Any]], name: str) -> list[dict[str, Any]]:
    """Return super pods or clusters; those with one name become one."""
    merged: dict[str, dict[str, Any]] = {}
    for group in groups:
        held = merged.setdefault(str(group.get(name)), {**group, "server_list": []})
        held["server_list"] = [*held["server_list"], *group["server_list"]]
    return [merged[key] for key in sorted(merged)]


def _common_keys(documents: Mapping[str, Mapping[str, Any]]) -> dict[str, Any]:
    """Return what the tables hold beside servers; they must agree on it."""
    common: dict[str, Any] = {}
    owner: dict[str, str] = {}
    for source, document in documents.items():
        for key, value in document.items():
            if key in COUNTED:
                continue
            if common.setdefault(key, value) != value:
                what = f"{value!r}, but {owner[key]} has {common[key]!r}"
                raise RankTableError(source, [Problem(f"$.{key}", what, "make them agree")])
            owner.setdefault(key, source)
    return common


def _refuse_repeats(documents: Mapping[str, Mapping[str, Any]]) -> None:
    servers = [
        (f"{source}: $.server_list[{s}]", server)
        for source, document in documents.items()
        for s, server in enumerate(document["server_list"])
    ]
    names = [(f"{path}.server_id", str(server["server_id"])) for path, server in servers]
    addresses = [
        (f"{path}.device[{d}].device_ip", address)
        for path, server in servers
        for d, device in enumerate(server["device"])
        for address in device.get("device_ip", "").split(",")
        if address
    ]
    problems = [
        Problem(path, f"{value!r} is also {first}", "name the table of each server once")
        for places in (names, addresses)
        for path, value, first in repeats(places)
    ]
    if problems:
        raise RankTableError("", problems)
