"""Check what version 1.0 and 1.2 demand of servers, ports and clusters, beside types."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

from launcher.rank_table import super_pods
from launcher.rank_table.addresses import check_families
from launcher.rank_table.finding import Finding, error, repeats, warning
from launcher.rank_table.server_document import PlacedDevice, PodTable, ServerTable

KNOWN_WORDS = {"net_position": ("host", "device"), "net_protocol": ("rdma", "tcp")}


def check(table: ServerTable, devices: Sequence[PlacedDevice], root: str) -> Iterator[Finding]:
    """Yield what is wrong with a table; ``root`` is the path of what holds ``server_list``."""
    yield from _server_findings(table, root)
    pods: int | None = None
    if isinstance(table, PodTable):
        pods = len(table.super_pod_list or ())
        members = [
            super_pods.Member(place.path, place.server.server_id, place.device.super_device_id)
            for place in devices
        ]
        yield from super_pods.check(table.super_pod_list, members, root)
    if len(table.server_list) > 1 and pods != 1:  # devices of one pod need no port of their own
        yield from _address_findings(devices, pods=bool(pods))
    yield from _host_findings(table, root)
    yield from _port_findings(devices)
    yield from _word_findings(devices)
    yield from _backup_findings(devices)
    if table.cluster_list is not None:
        yield from _cluster_findings(table, root)


def _server_findings(table: ServerTable, root: str) -> Iterator[Finding]:
    count, found = table.server_count, len(table.server_list)
    if count and int(count) != found:
        what = f"{count}, but server_list holds {found}"
        fix = f'write "{found}", or add the missing servers'
        hccl = f"EI0014 value {count} of server_count, expected {found}"
        yield error(f"{root}.server_count", what, fix, hccl)
    places = ((f"{root}.server_list[{s}]", e.server_id) for s, e in enumerate(table.server_list))
    for path, name, first in repeats(places):
        fix = "list all devices of a server in one place"
        hccl = f"EI0014 [server_id]:[{name}] is already exist"
        yield error(f"{path}.server_id", f"{name!r} is also {first}", fix, hccl)


def _host_findings(table: ServerTable, root: str) -> Iterator[Finding]:
    places = [
        (f"{root}.server_list[{s}].host_ip", server.host_ip)
        for s, server in enumerate(table.server_list)
        if server.host_ip
    ]
    yield from check_families(places, "EI0014 family of host_ip, expected that of the others")


def _address_findings(devices: Sequence[PlacedDevice], pods: bool) -> Iterator[Finding]:
    """Yield the devices without a device_ip in a table of several servers, or several pods."""
    see = "see `hccn_tool -i N -ip -g`"
    hccl = "EI0014 'device_ip' is not set correctly, must be set when multi Server"
    for path, _, server, device in devices:
        if device.device_ip:
            continue
        if server.host_ip and not pods:
            fix = f"an A2 needs it even beside host_ip, {see}"
            yield warning(f"{path}.device_ip", "missing", fix, hccl)
        else:
            fix = f"devices of several servers need it, {see}"
            yield error(f"{path}.device_ip", "missing", fix, hccl)


def _port_findings(devices: Sequence[PlacedDevice]) -> Iterator[Finding]:
    places = (
        (f"{place.path}.host_port", (place.server_path, int(place.device.host_port)))
        for place in devices
        if place.device.host_port
    )
    for path, (_, port), first in repeats(places):
        fix = "give each device of a server its own"
        hccl = "EJ0003 the port is in use, when the second process binds it"
        yield warning(path, f"port {port} is also {first}", fix, hccl)


def _word_findings(devices: Sequence[PlacedDevice]) -> Iterator[Finding]:
    for path, _, server, device in devices:
        for key, words in KNOWN_WORDS.items():
            word = getattr(device, key)
            if word and word not in words:
                yield warning(
                    f"{path}.{key}", f"HCCL ignores {word!r}", f"write {' or '.join(words)}"
                )
        if device.net_position == "host" and not server.host_ip:
            what, fix = "'host', but the server has no host_ip", "add host_ip to the server"
            yield error(f"{path}.net_position", what, fix, "hostIp config is different")


def _backup_findings(devices: Sequence[PlacedDevice]) -> Iterator[Finding]:
    """Yield what is wrong with the ports of another die that an A3's devices may fall back to."""
    backups = [
        (place, address)
        for place in devices
        for address in place.device.backup_device_ip.split(",")
        if address
    ]
    places = ((f"{place.path}.backup_device_ip", address) for place, address in backups)
    for path, address, first in repeats(places):
        hccl = f"EI0014 [backup_device_ip]:[{address}] is already exist"
        yield error(path, f"{address} is also {first}", "give each device its own", hccl)
    owners = {address: place for place in devices for address in place.device.device_ip.split(",")}
    for place, address in backups:
        owner = owners.get(address)
        if owner is place:
            fix = "name the port of the other die of the same NPU"
            hccl = "Please do not use self ip as backup ip!"
            yield error(f"{place.path}.backup_device_ip", "the device's own address", fix, hccl)
        elif owner and (port := place.device.backup_device_port):
            if port == owner.device.device_port:
                what = f"port {port} is the device_port of {owner.path}, whose address this is"
                hccl = "backup device port should not be the same with device port"
                yield error(f"{place.path}.backup_device_port", what, "choose another", hccl)


def _cluster_findings(table: ServerTable, root: str) -> Iterator[Finding]:
    """Yield servers that the clusters of a cross-cluster table do not name exactly once."""
    named = [
        (f"{path}.server_id", str(server.get("server_id")))
        for outer, cluster in _objects(table.cluster_list, f"{root}.cluster_list")
        for path, server in _objects(cluster.get("server_list"), f"{outer}.server_list")
    ]
    known = [server.server_id for server in table.server_list]
    for path, name in named:
        if name not in known:
            yield warning(path, f"{name!r} is not in server_list", "write it as there")
    for path, name, first in repeats(named):
        yield warning(path, f"{name!r} is also {first}", "name each server in one cluster")
    in_clusters = {name for _, name in named}
    for name in (name for name in known if name not in in_clusters):
        yield warning(f"{root}.cluster_list", f"{name!r} is in no cluster", "add it to one")


def _objects(values: Any, path: str) -> Iterator[tuple[str, dict[str, Any]]]:
    """Yield the objects of a list that nobody has checked, each with its path."""
    for index, value in enumerate(values if isinstance(values, list) else ()):
        if isinstance(value, dict):
            yield f"{path}[{index}]", value
