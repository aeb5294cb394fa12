"""Read tables of version 1.0 and 1.2: ``server_list``, and the variants that frameworks made of it.

Read too are the keys that MindSpore's cross-cluster tables, MindIE and ClusterD add to it, and
ClusterD's ``server_group_list``, as long as one group of servers holds the devices.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Annotated, Any

from pydantic import Field

from launcher.rank_table import server_rules
from launcher.rank_table.finding import Draft, Entry, Finding, error, warning
from launcher.rank_table.order import check_devices
from launcher.rank_table.server_document import ListedServer, PlacedDevice, PodTable, ServerTable
from launcher.rank_table.shape import validated
from launcher.rank_table.table import Device
from launcher.rank_table.values import Strict

ALIAS_KEYS = ("host_ip", "server_ip", "pod_ip", "container_ip")
VLLM_KEYS = ("prefill_device_list", "decode_device_list")


class _Group(Strict):
    """Servers of one role. Coordinators and controllers have no devices."""

    server_list: list[dict[str, Any]] = []


class _Groups(Strict):
    server_group_list: Annotated[list[_Group], Field(min_length=1)]


def parse(document: Mapping[str, Any]) -> Draft:
    """Return what a document holds.

    Raises:
        ShapeError: a value is missing, has another type than HCCL wants, or is out of bounds.
    """
    if "server_group_list" in document and "server_list" not in document:
        return _parse_groups(document)
    return _parse_servers(document, document["version"], "$")


def strangers(document: Mapping[str, Any]) -> Iterator[Finding]:
    """Yield the keys by which one sees that a document was made for another program."""
    for key in VLLM_KEYS:
        if key in document:
            what = "a key of vllm-ascend's tables for disaggregated prefill"
            yield warning(f"$.{key}", what, "HCCL ignores it; list the devices in server_list")
    if "super_pod_list" in document and document["version"] != "1.2":
        yield warning("$.super_pod_list", "HCCL ignores it in this version", 'write "1.2"')


def _parse_groups(document: Mapping[str, Any]) -> Draft:
    groups = validated(_Groups, document).server_group_list
    with_devices = [
        index
        for index, group in enumerate(groups)
        if any(server.get("device") for server in group.server_list)
    ]
    if len(with_devices) != 1:
        what = f"{len(with_devices)} groups have servers with devices"
        fix = "each of them is a job: name a table that holds the servers of one"
        hccl = "json object has no property called server_list"
        return Draft(findings=(error("$.server_group_list", what, fix, hccl),))
    (index,) = with_devices
    group = document["server_group_list"][index]
    return _parse_servers(group, document["version"], f"$.server_group_list[{index}]")


def _parse_servers(document: Mapping[str, Any], version: str, root: str) -> Draft:
    """Read what has a ``server_list``; ``root`` is the path of it."""
    model = PodTable if version == "1.2" else ServerTable
    table = validated(model, document, root)
    servers = {f"{root}.server_list[{s}]": entry for s, entry in enumerate(table.server_list)}
    devices = [
        PlacedDevice(f"{path}.device[{d}]", path, server, device)
        for path, server in servers.items()
        for d, device in enumerate(server.device)
    ]
    entries = tuple(map(_entry, devices))
    findings = (*server_rules.check(table, devices, root), *check_devices(entries))
    aliases = {server.server_id: _aliases(server) for server in table.server_list}
    return Draft(entries, findings, aliases)


def _entry(place: PlacedDevice) -> Entry:
    rank, device_id = int(place.device.rank_id), int(place.device.device_id)
    return Entry(
        Device(rank, device_id, place.server.server_id, place.device.device_ip),
        path=place.path,
        rank_path=f"{place.path}.rank_id",
        server_path=f"{place.server_path}.server_id",
    )


def _aliases(server: ListedServer) -> tuple[str, ...]:
    values = (getattr(server, key) for key in ALIAS_KEYS)
    return tuple(dict.fromkeys(value for value in values if value and isinstance(value, str)))
