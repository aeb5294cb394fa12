"""Tables without a version: the forms of the lab and of the cloud."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from launcher.rank_table.finding import Finding
from launcher.rank_table.reading import Reading
from launcher.rank_table.table import Device

Table = dict[str, Any]
Read = Callable[..., Reading]
FindingAt = Callable[..., Finding]
Sample = Callable[[str], Table]


def test_a_lab_says_which_rank_a_device_has(sample: Sample, read: Read) -> None:
    table = read(sample("lab_1x2")).table
    assert table is not None
    assert table.devices[1] == Device(1, 1, "10.*.*.*", "192.2.27.6")


def test_a_cloud_leaves_the_numbers_to_hccl(sample: Sample, read: Read) -> None:
    # The file lists 10.0.0.2 first and device 1 before device 0
    table = read(sample("cloud_2x2")).table
    assert table is not None
    assert [(d.server_id, d.device_id) for d in table.devices] == [
        ("10.0.0.1", 0),
        ("10.0.0.1", 1),
        ("10.0.0.2", 0),
        ("10.0.0.2", 1),
    ]
    assert [device.rank for device in table.devices] == [0, 1, 2, 3]
    assert table.aliases == {"10.0.0.1": ("pod0",), "10.0.0.2": ("pod1",)}


def test_servers_are_ordered_as_texts(sample: Sample, read: Read) -> None:
    document = sample("cloud_2x2")
    document["group_list"][0]["instance_list"][0]["server_id"] = "10.0.0.10"
    document["group_list"][0]["instance_list"][1]["server_id"] = "10.0.0.9"
    table = read(document).table
    assert table is not None and table.servers == ("10.0.0.10", "10.0.0.9")


def group(table: Table) -> Table:
    found: Table = table["group_list"][0]
    return found


def instance(table: Table, index: int) -> Table:
    found: Table = group(table)["instance_list"][index]
    return found


INSTANCE = "$.group_list[0].instance_list[1]"
BROKEN: dict[str, tuple[str, Callable[[Table], object], str, str]] = {
    # sample, what is done to it -> the JSON path and a word of the message
    "host network": (
        "lab_1x2",
        lambda t: t.update(para_plane_nic_location="host"),
        "$.para_plane_nic_location",
        'write "device"',
    ),
    "wrong number of groups": (
        "lab_1x2",
        lambda t: t.update(group_count="2"),
        "$.group_count",
        "2, but there are 1",
    ),
    "wrong number of instances": (
        "lab_1x2",
        lambda t: group(t).update(instance_count="3"),
        "$.group_list[0].instance_count",
        "3, but there are 2",
    ),
    "wrong number of devices in a lab": (
        "lab_1x2",
        lambda t: group(t).update(device_num="4"),
        "$.group_list[0].device_num",
        "4, but there are 2",
    ),
    "devices that servers cannot share": (
        "lab_1x2",
        lambda t: group(t).update(server_num="0"),
        "$.group_list[0].server_num",
        "2 devices on 0 servers",
    ),
    "two devices for one rank": (
        "lab_1x2",
        lambda t: instance(t, 1)["devices"].append({"device_id": "2", "device_ip": "192.3.0.1"}),
        f"{INSTANCE}.devices",
        "2 devices for one rank_id",
    ),
    "rank twice": (
        "lab_1x2",
        lambda t: instance(t, 1).update(rank_id="0"),
        f"{INSTANCE}.rank_id",
        "rank 0 is also $.group_list[0].instance_list[0]",
    ),
    "no address in a lab": (
        "lab_1x2",
        lambda t: instance(t, 1)["devices"][0].pop("device_ip"),
        f"{INSTANCE}.devices[0].device_ip",
        "hccn_tool",
    ),
    "wrong number of devices in a cloud": (
        "cloud_2x2",
        lambda t: group(t).update(device_count="3"),
        "$.group_list[0].device_count",
        "3, but there are 4",
    ),
    "pod twice": (
        "cloud_2x2",
        lambda t: instance(t, 1).update(pod_name="pod1"),
        f"{INSTANCE}.pod_name",
        "RANK_ID names it",
    ),
    "device that no server of a cloud has": (
        "cloud_2x2",
        lambda t: instance(t, 1)["devices"][0].update(device_id="8"),
        f"{INSTANCE}.devices[0].device_id",
        "the last device is 7",
    ),
    "no address in a cloud of two servers": (
        "cloud_2x2",
        lambda t: instance(t, 1)["devices"][0].pop("device_ip"),
        f"{INSTANCE}.devices[0].device_ip",
        "missing",
    ),
    "group twice": (
        "cloud_2x2",
        lambda t: t["group_list"].append(t["group_list"][0]),
        "$.group_list[1].group_name",
        "'job' is also $.group_list[0]",
    ),
}


@pytest.mark.parametrize("rule", BROKEN)
def test_a_broken_rule_is_named_with_its_place_and_its_fix(
    rule: str, sample: Sample, finding_at: FindingAt
) -> None:
    name, break_it, path, word = BROKEN[rule]
    document = sample(name)
    break_it(document)
    finding = finding_at(document, path)
    assert finding.is_error
    assert word in str(finding)
    assert finding.hccl


def test_a_wrong_number_of_servers_is_doubtful(sample: Sample, finding_at: FindingAt) -> None:
    document = sample("lab_1x2")
    document["group_list"][0]["server_num"] = "2"
    finding = finding_at(document, "$.group_list[0].server_num")
    assert (finding.is_error, finding.what) == (False, "2, but the instances name 1")
