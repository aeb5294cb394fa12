"""Version 1.2: the super pods of the A3."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from launcher.rank_table.finding import Finding
from launcher.rank_table.reading import Reading

Table = dict[str, Any]
Read = Callable[..., Reading]


@pytest.fixture
def pods(sample: Callable[[str], Table]) -> Table:
    """Return four servers of four devices, two super pods."""
    return sample("super_pods_4x4")


def device(table: Table, server: int, index: int) -> Table:
    found: Table = table["server_list"][server]["device"][index]
    return found


def swap_servers(table: Table) -> None:
    servers = table["server_list"]
    servers[1], servers[2] = servers[2], servers[1]


def test_ids_of_devices_may_come_again_in_another_pod(pods: Table, read: Read) -> None:
    assert device(pods, 0, 0)["super_device_id"] == device(pods, 2, 0)["super_device_id"]
    assert read(pods).findings == ()


def test_devices_of_one_pod_need_no_address(pods: Table, read: Read) -> None:
    pods["super_pod_list"] = [
        {"super_pod_id": "0", "server_list": [{"server_id": f"node_{n}"} for n in range(4)]}
    ]
    for number in range(16):
        entry = device(pods, number // 4, number % 4)
        entry.update(super_device_id=str(number))
        del entry["device_ip"], entry["backup_device_ip"]
    assert read(pods).findings == ()


SDID = "$.server_list[1].device[0].super_device_id"
BROKEN: dict[str, tuple[Callable[[Table], object], str, str, str]] = {
    "super_device_id empty": (
        lambda t: device(t, 1, 0).update(super_device_id=""),
        SDID,
        "npu-smi info -t spod-info",
        "EI0014",
    ),
    "super_device_id as a number": (
        lambda t: device(t, 1, 0).update(super_device_id=4),
        SDID,
        'write "4"',
        "EI0017",
    ),
    "super_device_id missing": (
        lambda t: device(t, 1, 0).pop("super_device_id"),
        SDID,
        "missing",
        "",
    ),
    "super_device_id twice in a pod": (
        lambda t: device(t, 1, 0).update(super_device_id="0"),
        SDID,
        "0 of super pod '0' is also $.server_list[0].device[0]",
        "",
    ),
    "pod twice": (
        lambda t: t["super_pod_list"][1].update(super_pod_id="0"),
        "$.super_pod_list[1].super_pod_id",
        "'0' is also $.super_pod_list[0]",
        "EI0014",
    ),
    "pod without a name": (
        lambda t: t["super_pod_list"][1].update(super_pod_id=""),
        "$.super_pod_list[1].super_pod_id",
        "at least 1 character",
        "",
    ),
    "server in two pods": (
        lambda t: t["super_pod_list"][1]["server_list"].append({"server_id": "node_0"}),
        "$.super_pod_list[1].server_list[2].server_id",
        "name each server in one super pod",
        "",
    ),
    "server in no pod": (
        lambda t: t["super_pod_list"][1]["server_list"].pop(),
        "$.super_pod_list",
        "'node_3' is in no super pod",
        "",
    ),
    "pod with a server that is not listed": (
        lambda t: t["super_pod_list"][1]["server_list"].append({"server_id": "node_9"}),
        "$.super_pod_list[1].server_list[2].server_id",
        "'node_9' is not in server_list",
        "EI0014",
    ),
    "no address of a device, and two pods": (
        lambda t: device(t, 0, 0).pop("device_ip"),
        "$.server_list[0].device[0].device_ip",
        "devices of several servers need it",
        "EI0014",
    ),
}


@pytest.mark.parametrize("rule", BROKEN)
def test_a_broken_rule_is_named_with_its_place_its_fix_and_the_code(
    rule: str, pods: Table, finding_at: Callable[..., Finding]
) -> None:
    break_it, path, word, code = BROKEN[rule]
    break_it(pods)
    finding = finding_at(pods, path)
    assert finding.is_error
    assert word in str(finding)
    assert finding.code == code


def test_pods_whose_servers_do_not_stand_together_are_doubtful(
    pods: Table, read: Read
) -> None:
    swap_servers(pods)
    whats = [finding.what for finding in read(pods).warnings]
    assert "the servers of super pod '0' do not stand together" in whats


def test_ids_without_pods_are_doubtful(pods: Table, finding_at: Callable[..., Finding]) -> None:
    del pods["super_pod_list"]
    finding = finding_at(pods, "$.super_pod_list")
    assert not finding.is_error
    assert "as in version 1.0" in finding.fix


def test_without_pods_and_ids_version_1_2_is_like_1_0(pods: Table, read: Read) -> None:
    del pods["super_pod_list"]
    for server in pods["server_list"]:
        for entry in server["device"]:
            del entry["super_device_id"]
    assert read(pods).findings == ()
