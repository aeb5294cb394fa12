"""Version 1.0: what is read, and one broken table for each rule."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from launcher.errors import RankTableError
from launcher.rank_table.finding import Finding
from launcher.rank_table.reading import Reading, parse_rank_table
from launcher.rank_table.table import Device

EXAMPLES = Path(__file__).parents[3] / "rank_tables"
Table = dict[str, Any]
Read = Callable[..., Reading]
FindingAt = Callable[..., Finding]


def refuse(table: Any) -> RankTableError:
    with pytest.raises(RankTableError) as caught:
        parse_rank_table(table if isinstance(table, str) else json.dumps(table), "hccl.json")
    assert caught.value.exit_code == 2
    assert str(caught.value).startswith("hccl.json: ")
    return caught.value


def test_devices_come_in_the_order_of_their_ranks(two_servers: Table) -> None:
    two_servers["server_list"].reverse()  # ranks 2, 3 stand first in the file

    table = parse_rank_table(json.dumps(two_servers), "hccl.json")

    assert table.devices[2] == Device(2, 0, "10.0.0.1", "192.168.1.1")
    assert [device.rank for device in table.devices] == [0, 1, 2, 3]
    assert table.servers == ("10.0.0.0", "10.0.0.1")
    assert table.devices_by_server()["10.0.0.1"] == list(table.devices[2:])


@pytest.mark.parametrize("path", sorted(EXAMPLES.glob("*.json")), ids=lambda path: str(path.stem))
def test_every_example_is_a_table_without_a_flaw(path: Path, read: Read) -> None:
    reading = read(json.loads(path.read_text()))
    assert reading.table is not None
    assert reading.findings == ()


@pytest.mark.parametrize(
    ("name", "servers", "ranks"), [("1x2", 1, 2), ("1x8", 1, 8), ("2x8", 2, 16)]
)
def test_the_names_of_examples_count_servers_and_devices(
    name: str, servers: int, ranks: int
) -> None:
    path = EXAMPLES / f"hccl_{name}.json"
    table = parse_rank_table(path.read_text(), path.name)
    assert (len(table.servers), table.rank_size) == (servers, ranks)


def test_keys_that_hccl_ignores_are_ignored(two_servers: Table, read: Read) -> None:
    two_servers["server_list"][0] |= {"host_nic_ip": "reserve", "hardware_type": 7}
    two_servers["server_list"][0]["device"][0] |= {"device_logical_id": 0, "numa_id": ""}
    two_servers["super_device_id"] = 3
    assert read(two_servers).findings == ()


def test_server_count_may_be_left_out(two_servers: Table, read: Read) -> None:
    del two_servers["server_count"]
    assert read(two_servers).findings == ()


def test_one_server_may_do_without_device_addresses(two_servers: Table, read: Read) -> None:
    document = two_servers | {"server_count": "1"}
    del document["server_list"][1]
    for device in document["server_list"][0]["device"]:
        del device["device_ip"]
    reading = read(document)
    assert reading.table is not None and reading.table.devices[1].device_ip == ""
    assert [finding.what for finding in reading.warnings] == ["2 of 2 devices have no device_ip"]


def test_devices_may_have_several_addresses(two_servers: Table, read: Read) -> None:
    for server in two_servers["server_list"]:
        for device in server["device"]:
            device["device_ip"] += "," + device["device_ip"].replace("192", "193") + ","
    reading = read(two_servers)
    assert reading.findings == ()
    assert reading.table is not None
    assert reading.table.devices[0].device_ip == "192.168.0.1,193.168.0.1,"


def test_other_names_of_a_server_are_kept(two_servers: Table, read: Read) -> None:
    two_servers["server_list"][0] |= {"host_ip": "172.16.0.1", "container_ip": "172.17.0.2"}
    table = read(two_servers).table
    assert table is not None
    assert table.aliases == {"10.0.0.0": ("172.16.0.1", "172.17.0.2"), "10.0.0.1": ()}


def device(table: Table, server: int, index: int) -> Table:
    found: Table = table["server_list"][server]["device"][index]
    return found


def make_clusters(table: Table, *names: str) -> None:
    table["cluster_list"] = [{"cluster_id": "0", "server_list": [{"server_id": n} for n in names]}]


DEVICE = "$.server_list[0].device[0]"
LAST = "$.server_list[1].device[1]"
BROKEN: dict[str, tuple[Callable[[Table], object], str, str, str]] = {
    # what is done to the table -> the JSON path, a word of the message, the code of HCCL
    "rank_id as a number": (
        lambda t: device(t, 0, 1).update(rank_id=1),
        "$.server_list[0].device[1].rank_id",
        'write "1"',
        "EI0017",
    ),
    "rank_id that is no number": (
        lambda t: device(t, 0, 1).update(rank_id="one"),
        "$.server_list[0].device[1].rank_id",
        "'one' is not a number",
        "EI0014",
    ),
    "rank_id beyond 32 bits": (
        lambda t: device(t, 0, 1).update(rank_id="4294967296"),
        "$.server_list[0].device[1].rank_id",
        "4294967296 is too large",
        "EI0014",
    ),
    "rank_id missing": (
        lambda t: device(t, 1, 0).pop("rank_id"),
        "$.server_list[1].device[0].rank_id",
        "missing",
        "EI0017",
    ),
    "rank twice": (
        lambda t: device(t, 1, 0).update(rank_id="1"),
        "$.server_list[1].device[0].rank_id",
        "rank 1 is also $.server_list[0].device[1]",
        "EI0014",
    ),
    "gap in the ranks": (
        lambda t: device(t, 1, 1).update(rank_id="7"),
        f"{LAST}.rank_id",
        "number the ranks 0 to 3",
        "EI0014",
    ),
    "device_id as a number": (
        lambda t: device(t, 0, 0).update(device_id=0),
        f"{DEVICE}.device_id",
        "not a string",
        "EI0017",
    ),
    "device twice": (
        lambda t: device(t, 1, 1).update(device_id="0"),
        f"{LAST}.device_id",
        "device 0 of 10.0.0.1 is also $.server_list[1].device[0]",
        "EI0014",
    ),
    "device_ip twice": (
        lambda t: device(t, 1, 1).update(device_ip="192.168.0.1"),
        f"{LAST}.device_ip",
        "192.168.0.1 is also $.server_list[0].device[0]",
        "EI0014",
    ),
    "device_ip that is no address": (
        lambda t: device(t, 0, 0).update(device_ip="192.168.0.256"),
        f"{DEVICE}.device_ip",
        "no IP address",
        "EI0014",
    ),
    "device_ip with a blank behind the comma": (
        lambda t: device(t, 0, 0).update(device_ip="192.168.0.1, 192.168.0.9"),
        f"{DEVICE}.device_ip",
        "' 192.168.0.9' is no IP address",
        "EI0014",
    ),
    "device_ip null": (
        lambda t: device(t, 0, 0).update(device_ip=None),
        f"{DEVICE}.device_ip",
        "leave the key out",
        "EI0017",
    ),
    "device_ip missing with several servers": (
        lambda t: device(t, 0, 0).pop("device_ip"),
        f"{DEVICE}.device_ip",
        "hccn_tool",
        "EI0014",
    ),
    "more addresses than the first device": (
        lambda t: device(t, 1, 1).update(device_ip="192.168.9.1,192.168.9.2"),
        f"{LAST}.device_ip",
        "2 addresses, but the first device has 1",
        "",
    ),
    "device_ip of another family": (
        lambda t: device(t, 1, 1).update(device_ip="fd00::1"),
        f"{LAST}.device_ip",
        "fd00::1 is IPv6, but $.server_list[0].device[0].device_ip is IPv4",
        "EI0001",
    ),
    "host_ip that is no address": (
        lambda t: t["server_list"][1].update(host_ip="host"),
        "$.server_list[1].host_ip",
        "no IP address",
        "EI0014",
    ),
    "host_ip of another family": (
        lambda t: [s.update(host_ip=ip) for s, ip in zip(t["server_list"], ("10.0.0.1", "::2"))],
        "$.server_list[1].host_ip",
        "use IPv4 addresses everywhere",
        "EI0014",
    ),
    "port 0": (
        lambda t: device(t, 0, 0).update(device_port="0"),
        f"{DEVICE}.device_port",
        "port 0 is reserved",
        "",
    ),
    "port too large": (
        lambda t: device(t, 0, 0).update(host_port="65536"),
        f"{DEVICE}.host_port",
        "write 1 to 65535",
        "",
    ),
    "own address as backup": (
        lambda t: device(t, 0, 0).update(backup_device_ip="192.168.0.1"),
        f"{DEVICE}.backup_device_ip",
        "the device's own address",
        "",
    ),
    "backup address twice": (
        lambda t: [device(t, 1, n).update(backup_device_ip="192.168.0.1") for n in (0, 1)],
        f"{LAST}.backup_device_ip",
        "192.168.0.1 is also $.server_list[1].device[0]",
        "EI0014",
    ),
    "backup port that the other die uses": (
        lambda t: (
            device(t, 0, 0).update(backup_device_ip="192.168.0.2", backup_device_port="16666"),
            device(t, 0, 1).update(device_port="16666"),
        ),
        f"{DEVICE}.backup_device_port",
        "port 16666 is the device_port of $.server_list[0].device[1]",
        "",
    ),
    "host network without an address of the host": (
        lambda t: device(t, 0, 0).update(net_position="host"),
        f"{DEVICE}.net_position",
        "add host_ip",
        "",
    ),
    "server twice": (
        lambda t: t["server_list"][1].update(server_id="10.0.0.0"),
        "$.server_list[1].server_id",
        "'10.0.0.0' is also $.server_list[0]",
        "EI0014",
    ),
    "server without a name": (
        lambda t: t["server_list"][1].update(server_id=""),
        "$.server_list[1].server_id",
        "at least 1 character",
        "",
    ),
    "name of a server too long": (
        lambda t: t["server_list"][1].update(server_id="s" * 65),
        "$.server_list[1].server_id",
        "at most 64 characters",
        "",
    ),
    "server without devices": (
        lambda t: t["server_list"][1].update(device=[]),
        "$.server_list[1].device",
        "empty; write one",
        "",
    ),
    "no servers": (lambda t: t.update(server_list=[]), "$.server_list", "empty; write one", ""),
    "server that is no object": (
        lambda t: t.update(server_list=[7]),
        "$.server_list[0]",
        "write {...}",
        "",
    ),
    "server_list that is no list": (
        lambda t: t.update(server_list={}),
        "$.server_list",
        "write [...]",
        "",
    ),
    "server_list missing": (lambda t: t.pop("server_list"), "$.server_list", "missing", ""),
    "server_count wrong": (
        lambda t: t.update(server_count="3"),
        "$.server_count",
        "3, but server_list holds 2",
        "EI0014",
    ),
    "server_count as a number": (
        lambda t: t.update(server_count=2),
        "$.server_count",
        'write "2"',
        "EI0017",
    ),
    "status missing": (lambda t: t.pop("status"), "$.status", "missing", "EI0017"),
    "status as a number": (lambda t: t.update(status=1), "$.status", "not a string", "EI0017"),
    "status initializing": (
        lambda t: t.update(status="initializing"),
        "$.status",
        "not filled in yet",
        "",
    ),
    "status unknown": (lambda t: t.update(status="done"), "$.status", "write 'completed'", ""),
    "version of another format": (
        lambda t: t.update(version="1.1"),
        "$.version",
        "'1.1' is not read; versions that are read: '1.0', '1.2', '2.0'",
        "EI0014",
    ),
    "version as a number": (
        lambda t: t.update(version=1.0),
        "$.version",
        "1.0 is not read",
        "EI0017",
    ),
    "version missing": (lambda t: t.pop("version"), "$.version", "missing", ""),
}


@pytest.mark.parametrize("rule", BROKEN)
def test_a_broken_rule_is_named_with_its_place_its_fix_and_the_code(
    rule: str, two_servers: Table, finding_at: FindingAt
) -> None:
    break_it, path, word, code = BROKEN[rule]
    break_it(two_servers)

    finding = finding_at(two_servers, path)

    assert finding.is_error
    assert finding.line > 0
    assert word in str(finding)
    assert finding.code == code
    assert finding.fix
    assert str(finding) in str(refuse(json.dumps(two_servers, indent=1)))


DOUBTFUL: dict[str, tuple[Callable[[Table], object], str, str]] = {
    "device_ip missing beside a host_ip": (
        lambda t: (
            t["server_list"][0].update(host_ip="10.1.0.1"),
            device(t, 0, 0).pop("device_ip"),
        ),
        f"{DEVICE}.device_ip",
        "an A2 needs it",
    ),
    "host_port twice on a server": (
        lambda t: [device(t, 1, n).update(host_port="60001") for n in (0, 1)],
        f"{LAST}.host_port",
        "port 60001 is also $.server_list[1].device[0]",
    ),
    "net_position that HCCL does not know": (
        lambda t: device(t, 0, 0).update(net_position="Host"),
        f"{DEVICE}.net_position",
        "write host or device",
    ),
    "server_id of the loopback": (
        lambda t: t["server_list"][1].update(server_id="127.0.1.1"),
        "$.server_list[1].server_id",
        "'127.0.1.1' is every host's name for itself",
    ),
    "keys of vllm-ascend": (
        lambda t: t.update(prefill_device_list=[]),
        "$.prefill_device_list",
        "vllm-ascend",
    ),
    "super pods in version 1.0": (
        lambda t: t.update(super_pod_list=[]),
        "$.super_pod_list",
        "HCCL ignores it",
    ),
    "server in no cluster": (
        lambda t: make_clusters(t, "10.0.0.1"),
        "$.cluster_list",
        "'10.0.0.0' is in no cluster",
    ),
    "server in two clusters": (
        lambda t: make_clusters(t, "10.0.0.0", "10.0.0.1", "10.0.0.1"),
        "$.cluster_list[0].server_list[2].server_id",
        "is also $.cluster_list[0].server_list[1]",
    ),
    "cluster with a server that is not listed": (
        lambda t: make_clusters(t, "10.0.0.0", "10.0.0.1", "10.0.0.7"),
        "$.cluster_list[0].server_list[2].server_id",
        "'10.0.0.7' is not in server_list",
    ),
    "ranks of servers that interleave": (
        lambda t: (device(t, 0, 1).update(rank_id="2"), device(t, 1, 0).update(rank_id="1")),
        "$.server_list[0].server_id",
        "the ranks of 10.0.0.0 (0, 2) lie between those of other servers",
    ),
    "ranks against the order of server_id": (
        lambda t: [t["server_list"][n].update(server_id=f"10.0.0.{9 + n}") for n in (0, 1)],
        "$.server_list[1].server_id",
        "'10.0.0.10' has higher ranks than '10.0.0.9', but comes first in a dictionary",
    ),
}


@pytest.mark.parametrize("rule", DOUBTFUL)
def test_a_table_that_hccl_takes_with_a_doubt_is_usable(
    rule: str, two_servers: Table, read: Read
) -> None:
    break_it, path, word = DOUBTFUL[rule]
    break_it(two_servers)

    reading = read(two_servers)

    assert reading.table is not None
    found = [finding for finding in reading.warnings if finding.where == path]
    assert found and word in str(found[0])
    assert parse_rank_table(json.dumps(two_servers), "hccl.json") == reading.table


def test_every_problem_of_a_table_is_told_at_once(two_servers: Table) -> None:
    for entry in (device(two_servers, 0, 0), device(two_servers, 1, 1)):
        entry["rank_id"] = int(entry["rank_id"])
    assert len(refuse(two_servers).problems) == 2


def test_groups_that_each_are_a_job_are_not_one_table(
    sample: Callable[[str], Table], finding_at: FindingAt
) -> None:
    document = sample("clusterd_global")
    document["server_group_list"].append(document["server_group_list"][2])
    finding = finding_at(document, "$.server_group_list")
    assert "2 groups have servers with devices" in finding.what


def test_paths_inside_a_group_name_the_group(
    sample: Callable[[str], Table], finding_at: FindingAt
) -> None:
    document = sample("clusterd_global")
    document["server_group_list"][2]["server_list"][0]["device"][1]["rank_id"] = 1
    path = "$.server_group_list[2].server_list[0].device[1].rank_id"
    assert 'write "1"' in finding_at(document, path).fix


@pytest.mark.parametrize("clusters", [7, [7], [{}], [{"server_list": 7}], [{"server_list": [7]}]])
def test_clusters_of_any_shape_are_doubtful_at_most(
    clusters: Any, two_servers: Table, read: Read
) -> None:
    reading = read(two_servers | {"cluster_list": clusters})
    assert reading.table is not None
    assert len(reading.warnings) == 2  # each server is in no cluster
