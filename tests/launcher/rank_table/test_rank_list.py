"""Version 2.0: ranks with their network layers."""

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


@pytest.fixture
def ranks(sample: Callable[[str], Table]) -> Table:
    """Return two ranks of one server."""
    return sample("rank_list_1x2")


def test_the_innermost_instance_stands_for_the_server(ranks: Table, read: Read) -> None:
    table = read(ranks).table
    assert table is not None
    assert table.devices == (Device(0, 0, "az0-rack0"), Device(1, 1, "az0-rack0"))
    assert table.aliases == {"az0-rack0": ("223.0.0.10", "223.0.0.11")}


def test_status_may_be_left_out(ranks: Table, read: Read) -> None:
    del ranks["status"]
    assert read(ranks).findings == ()


def test_layers_need_not_follow_each_other(ranks: Table, read: Read) -> None:
    for number, rank in enumerate(ranks["rank_list"]):
        address = {"addr_type": "IPV4", "addr": f"192.168.100.{number}", "ports": ["d2h"]}
        outer = {"net_layer": 3, "net_instance_id": "cluster", "net_type": "CLOS"}
        rank["level_list"].append(outer | {"rank_addr_list": [address]})
        eid = {"addr_type": "EID", "addr": f"{number:032x}", "ports": ["0/4", "0/5"]}
        rank["level_list"][0]["rank_addr_list"] = [eid]
        rank["control_plane"] = {"addr_type": "IPV4", "addr": "10.0.0.1", "listen_port": 6000}
    reading = read(ranks)
    assert reading.findings == ()
    assert reading.table is not None
    assert reading.table.aliases["az0-rack0"] == ("192.168.100.0", "10.0.0.1", "192.168.100.1")


def test_a_backup_names_the_rank_that_it_replaces(ranks: Table, read: Read) -> None:
    ranks["rank_list"][1] |= {"local_id": 64, "replaced_local_id": 2}
    assert read(ranks).findings == ()


def rank(table: Table, index: int) -> Table:
    found: Table = table["rank_list"][index]
    return found


def level(table: Table, index: int) -> Table:
    found: Table = rank(table, index)["level_list"][0]
    return found


def address(table: Table, index: int) -> Table:
    found: Table = level(table, index)["rank_addr_list"][0]
    return found


RANK = "$.rank_list[1]"
LEVEL = f"{RANK}.level_list[0]"
ADDRESS = f"{LEVEL}.rank_addr_list[0]"
BROKEN: dict[str, tuple[Callable[[Table], object], str, str]] = {
    # what is done to the table -> the JSON path and a word of the message
    "rank_count as a text": (
        lambda t: t.update(rank_count="2"),
        "$.rank_count",
        "write 2 without quotes",
    ),
    "rank_count wrong": (
        lambda t: t.update(rank_count=3),
        "$.rank_count",
        "3, but rank_list holds 2",
    ),
    "rank_count 0": (lambda t: t.update(rank_count=0), "$.rank_count", "write 1 to 65536"),
    "rank_id as a text": (
        lambda t: rank(t, 1).update(rank_id="1"),
        f"{RANK}.rank_id",
        "write 1 without quotes",
    ),
    "rank_id true": (
        lambda t: rank(t, 1).update(rank_id=True),
        f"{RANK}.rank_id",
        "True is not a number",
    ),
    "rank twice": (
        lambda t: rank(t, 1).update(rank_id=0),
        f"{RANK}.rank_id",
        "rank 0 is also $.rank_list[0]",
    ),
    "gap in the ranks": (
        lambda t: rank(t, 1).update(rank_id=2),
        f"{RANK}.rank_id",
        "number the ranks 0 to 1",
    ),
    "local_id too large": (
        lambda t: rank(t, 1).update(local_id=65),
        f"{RANK}.local_id",
        "write 0 to 64",
    ),
    "device_id too large": (
        lambda t: rank(t, 1).update(device_id=65),
        f"{RANK}.device_id",
        "write 0 to 64",
    ),
    "port 0": (
        lambda t: rank(t, 1).update(device_port=0),
        f"{RANK}.device_port",
        "write 1 to 65535",
    ),
    "no layers": (
        lambda t: rank(t, 1).update(level_list=[]),
        f"{RANK}.level_list",
        "empty; write one",
    ),
    "nine layers": (
        lambda t: rank(t, 1).update(level_list=[level(t, 1)] * 9),
        f"{RANK}.level_list",
        "9 of them; at most 8",
    ),
    "layer too large": (
        lambda t: level(t, 1).update(net_layer=8),
        f"{LEVEL}.net_layer",
        "write 0 to 7",
    ),
    "layers out of order": (
        lambda t: rank(t, 1)["level_list"].append(level(t, 1)),
        f"{RANK}.level_list[1].net_layer",
        "list the layers from low to high",
    ),
    "instance without a name": (
        lambda t: level(t, 1).update(net_instance_id=""),
        f"{LEVEL}.net_instance_id",
        "at least 1 character",
    ),
    "unknown type of network": (
        lambda t: level(t, 1).update(net_type="MESH"),
        f"{LEVEL}.net_type",
        "'TOPO_FILE_DESC'",
    ),
    "unknown type of address": (
        lambda t: address(t, 1).update(addr_type="IPv4"),
        f"{ADDRESS}.addr_type",
        "'IPV4'",
    ),
    "address of another type": (
        lambda t: address(t, 1).update(addr_type="IPV6"),
        f"{ADDRESS}.addr",
        "'223.0.0.11' is no IPV6 address",
    ),
    "short EID": (
        lambda t: address(t, 1).update(addr_type="EID", addr="00df"),
        f"{ADDRESS}.addr",
        "32 hex digits",
    ),
    "no ports": (lambda t: address(t, 1).update(ports=[]), f"{ADDRESS}.ports", "empty; write one"),
    "seventeen ports": (
        lambda t: address(t, 1).update(ports=["0/1"] * 17),
        f"{ADDRESS}.ports",
        "17 of them; at most 16",
    ),
    "other number of addresses in the instance": (
        lambda t: level(t, 1)["rank_addr_list"].append(address(t, 1)),
        f"{LEVEL}.rank_addr_list",
        "2 addresses, but $.rank_list[0].level_list[0].rank_addr_list has 1",
    ),
    "backup that replaces nobody": (
        lambda t: rank(t, 1).update(local_id=64),
        f"{RANK}.replaced_local_id",
        "missing",
    ),
    "backup beside the rank that it replaces": (
        lambda t: rank(t, 1).update(local_id=64, replaced_local_id=0),
        f"{RANK}.replaced_local_id",
        "drop the rank it replaces",
    ),
    "two backups": (
        lambda t: [rank(t, n).update(local_id=64, replaced_local_id=n + 1) for n in (0, 1)],
        f"{RANK}.local_id",
        "one rank has local_id 64",
    ),
    "detour without quotes": (lambda t: t.update(detour=True), "$.detour", "'true'"),
    "rank_list missing": (lambda t: t.pop("rank_list"), "$.rank_list", "missing"),
    "table of an optical cross-connect": (
        lambda t: t.update(oxc_group_list=[]),
        "$.version",
        "is not read here",
    ),
}


@pytest.mark.parametrize("rule", BROKEN)
def test_a_broken_rule_is_named_with_its_place_and_its_fix(
    rule: str, ranks: Table, finding_at: FindingAt
) -> None:
    break_it, path, word = BROKEN[rule]
    break_it(ranks)
    finding = finding_at(ranks, path)
    assert finding.is_error
    assert word in str(finding)


@pytest.mark.parametrize("key", ["local_id", "device_id"])
def test_one_number_twice_on_a_server_is_doubtful(
    key: str, ranks: Table, finding_at: FindingAt
) -> None:
    ranks["rank_list"][1][key] = 0
    finding = finding_at(ranks, f"{RANK}.{key}")
    assert not finding.is_error
    assert finding.what == f"0 of az0-rack0 is also $.rank_list[0].{key}"
