"""Decide on which cores each rank of a site runs. Pure: what the host has is given."""

from __future__ import annotations

from collections.abc import Sequence

from launcher.host import Host
from launcher.rank_table.table import Device


def bind(how: str, host: Host, devices: Sequence[Device]) -> dict[int, tuple[int, ...]]:
    """Return the cores of each rank; () where the system may choose among all.

    Args:
        how: "none"; "cores": a share of the cores for each rank alone; "numa": the cores of the
            NUMA node that its device is next to, taking devices and nodes to be in one order.
        devices: of the ranks of this host.
    """
    if how == "cores":
        return _share_out(host, [device.rank for device in devices])
    nodes = numa_nodes(host)
    if how == "numa" and len(nodes) > 1:
        numbers = sorted({device.device_id for device in devices} | host.ascend_devices)
        places = {number: place for place, number in enumerate(numbers)}
        return {
            device.rank: nodes[places[device.device_id] * len(nodes) // len(numbers)]
            for device in devices
        }
    return {device.rank: () for device in devices}


def numa_nodes(host: Host) -> list[tuple[int, ...]]:
    """Return the usable cores of each NUMA node; all in one where the host does not say."""
    usable = [tuple(cpu for cpu in node if cpu in host.cpus) for node in host.numa]
    return [node for node in usable if node] or [host.cpus]


def _share_out(host: Host, ranks: Sequence[int]) -> dict[int, tuple[int, ...]]:
    """Give neighbours to each rank; where there are more ranks than cores, one in turn."""
    cpus = [cpu for node in numa_nodes(host) for cpu in node]
    each = len(cpus) // len(ranks)
    if each == 0:
        return {rank: (cpus[place % len(cpus)],) for place, rank in enumerate(ranks)}
    return {rank: tuple(cpus[i * each : (i + 1) * each]) for i, rank in enumerate(ranks)}
