"""Read tables without a version: ``group_list``, as labs and clouds wrote it for the Ascend 910.

A table of a lab says which rank a device has. In a cloud HCCL itself numbers the ranks: servers in
the order of their ids as texts, on each server by device_id.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from typing import Annotated, Any

from pydantic import Field

from launcher.rank_table.finding import Draft, Entry, Finding, error, repeats, warning
from launcher.rank_table.order import check_devices
from launcher.rank_table.shape import validated
from launcher.rank_table.table import Device
from launcher.rank_table.values import Addresses, Digits, ServerId, Strict

LEGAL_AVERAGES = (1, 2, 4, 8, 16)  # devices of one server, in a lab
LAST_DEVICE = 7  # of a server, in a cloud


class _Device(Strict):
    device_id: Digits
    device_ip: Addresses = ""


class _LabInstance(Strict):
    """A rank: HCCL reads one device for each rank_id."""

    server_id: ServerId
    rank_id: Digits
    devices: Annotated[list[_Device], Field(min_length=1)]


class _LabGroup(Strict):
    group_name: Annotated[str, Field(max_length=127)]
    device_num: Digits
    server_num: Digits
    instance_count: Digits
    instance_list: Annotated[list[_LabInstance], Field(min_length=1)]


class _LabTable(Strict):
    para_plane_nic_location: str
    group_count: Digits
    group_list: Annotated[list[_LabGroup], Field(min_length=1)]


class _CloudInstance(Strict):
    """A pod with all its devices."""

    server_id: ServerId
    pod_name: Annotated[str, Field(max_length=127)]
    devices: Annotated[list[_Device], Field(min_length=1)]


class _CloudGroup(Strict):
    group_name: Annotated[str, Field(max_length=127)]
    device_count: Digits
    instance_count: Digits
    instance_list: Annotated[list[_CloudInstance], Field(min_length=1)]


class _CloudTable(Strict):
    group_count: Digits
    group_list: Annotated[list[_CloudGroup], Field(min_length=1)]


def parse(document: Mapping[str, Any]) -> Draft:
    """Return what a document holds; ``deploy_mode`` is what makes it a lab's.

    Raises:
        ShapeError: a value is missing, has another type than HCCL wants, or is out of bounds.
    """
    if "deploy_mode" in document:
        return _parse_lab(validated(_LabTable, document))
    return _parse_cloud(validated(_CloudTable, document))


def _parse_lab(table: _LabTable) -> Draft:
    entries = tuple(
        Entry(
            Device(int(rank.rank_id), int(device.device_id), rank.server_id, device.device_ip),
            path=f"$.group_list[{g}].instance_list[{i}].devices[0]",
            rank_path=f"$.group_list[{g}].instance_list[{i}].rank_id",
            server_path=f"$.group_list[{g}].instance_list[{i}].server_id",
        )
        for g, group in enumerate(table.group_list)
        for i, rank in enumerate(group.instance_list)
        for device in rank.devices[:1]
    )
    findings = (*_lab_findings(table), *_address_findings(entries), *check_devices(entries))
    return Draft(entries, findings)


def _parse_cloud(table: _CloudTable) -> Draft:
    found: list[Entry] = []
    pods: dict[str, list[str]] = defaultdict(list)
    for g, group in enumerate(table.group_list):
        for i, pod in enumerate(group.instance_list):
            path = f"$.group_list[{g}].instance_list[{i}]"
            pods[pod.server_id].append(pod.pod_name)
            for d, device in enumerate(pod.devices):
                unnumbered = Device(0, int(device.device_id), pod.server_id, device.device_ip)
                found.append(Entry(unnumbered, f"{path}.devices[{d}]", "", f"{path}.server_id"))
    found.sort(key=lambda entry: (entry.device.server_id, entry.device.device_id))
    entries = tuple(
        replace(entry, device=replace(entry.device, rank=rank)) for rank, entry in enumerate(found)
    )
    findings = [*_cloud_findings(table), *_device_findings(entries), *check_devices(entries)]
    if len(pods) > 1:
        findings += _address_findings(entries)
    return Draft(entries, tuple(findings), {name: tuple(pods[name]) for name in pods})


def _lab_findings(table: _LabTable) -> Iterator[Finding]:
    if table.para_plane_nic_location != "device":
        where, hccl = "$.para_plane_nic_location", "paraPlaneLocation should be 'device'"
        yield error(where, f"{table.para_plane_nic_location!r} is not read", 'write "device"', hccl)
    yield from _group_count_findings(table.group_count, [g.group_name for g in table.group_list])
    for g, group in enumerate(table.group_list):
        path, held = f"$.group_list[{g}]", len(group.instance_list)
        hccl = f"check instanceNum[{group.instance_count}] or devNum[{group.device_num}] error"
        yield from _count_finding(f"{path}.instance_count", group.instance_count, held, hccl)
        yield from _count_finding(f"{path}.device_num", group.device_num, held, hccl)
        devices, servers = int(group.device_num), int(group.server_num)
        if not servers or devices % servers or devices // servers not in LEGAL_AVERAGES:
            what = f"{devices} devices on {servers} servers"
            fix = "each server has as many as the others, and that is 1, 2, 4, 8 or 16"
            hccl = f"device / server is invalid, uDeviceNum[{devices}], uServerNum[{servers}]"
            yield error(f"{path}.server_num", what, fix, hccl)
        for i, rank in enumerate(group.instance_list):
            if len(rank.devices) > 1:
                what, fix = f"{len(rank.devices)} devices for one rank_id", "give each its instance"
                hccl = "EI0014 value  of rank_id, expected a valid integer"
                yield error(f"{path}.instance_list[{i}].devices", what, fix, hccl)
        named = len({rank.server_id for rank in group.instance_list})
        if servers and servers != named:
            what = f"{servers}, but the instances name {named}"
            yield warning(f"{path}.server_num", what, f'write "{named}"')


def _cloud_findings(table: _CloudTable) -> Iterator[Finding]:
    yield from _group_count_findings(table.group_count, [g.group_name for g in table.group_list])
    names: list[tuple[str, str]] = []
    for g, group in enumerate(table.group_list):
        path, pods = f"$.group_list[{g}]", group.instance_list
        held = sum(len(pod.devices) for pod in pods)
        hccl = f"check instanceNum[{group.instance_count}] or devNum[{group.device_count}] error"
        yield from _count_finding(f"{path}.instance_count", group.instance_count, len(pods), hccl)
        yield from _count_finding(f"{path}.device_count", group.device_count, held, hccl)
        names += [(f"{path}.instance_list[{i}].pod_name", p.pod_name) for i, p in enumerate(pods)]
    for path, name, first in repeats(names):
        fix = "give each pod its own: RANK_ID names it"
        hccl = f"EI0014 [pod_name]:[{name}] is already exist"
        yield error(path, f"{name!r} is also {first}", fix, hccl)


def _device_findings(entries: Sequence[Entry]) -> Iterator[Finding]:
    for entry in entries:
        if entry.device.device_id > LAST_DEVICE:
            hccl = f"devicePhyId[{entry.device.device_id}] more than [{LAST_DEVICE}] is invalid"
            what = f"{entry.device.device_id}, but the last device is {LAST_DEVICE}"
            yield error(f"{entry.path}.device_id", what, "see `ls /dev/davinci*`", hccl)


def _group_count_findings(count: str, names: Sequence[str]) -> Iterator[Finding]:
    hccl = f"groupList size[{len(names)}] error, groupNum[{count}]"
    yield from _count_finding("$.group_count", count, len(names), hccl)
    places = ((f"$.group_list[{g}].group_name", name) for g, name in enumerate(names))
    for path, name, first in repeats(places):
        hccl = f"EI0014 [group_name]:[{name}] is already exist"
        yield error(path, f"{name!r} is also {first}", "give each group its own", hccl)


def _count_finding(where: str, count: str, held: int, hccl: str) -> Iterator[Finding]:
    if int(count) != held:
        yield error(where, f"{count}, but there are {held}", f'write "{held}"', hccl)


def _address_findings(entries: Sequence[Entry]) -> Iterator[Finding]:
    for entry in entries:
        if not entry.addresses:
            hccl = "EI0017 json object index has no property called device_ip"
            fix = "add it, see `hccn_tool -i N -ip -g`"
            yield error(f"{entry.path}.device_ip", "missing", fix, hccl)
