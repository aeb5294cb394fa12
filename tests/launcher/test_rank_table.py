"""Rank tables: what is read, and one broken table for each rule."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from launcher.errors import RankTableError
from launcher.rank_table import Device, parse_rank_table, simulated_rank_table

EXAMPLES = Path(__file__).parents[2] / "rank_tables"
Table = dict[str, Any]


def two_servers() -> Table:
    """Return two servers of two devices each: ranks 0, 1 and 2, 3."""
    return {
        "version": "1.0",
        "server_count": "2",
        "server_list": [
            {
                "server_id": f"10.0.0.{server}",
                "device": [
                    {
                        "device_id": str(device),
                        "device_ip": f"192.168.{server}.{device + 1}",
                        "rank_id": str(2 * server + device),
                    }
                    for device in range(2)
                ],
            }
            for server in range(2)
        ],
        "status": "completed",
    }


def refuse(table: Any) -> RankTableError:
    with pytest.raises(RankTableError) as caught:
        parse_rank_table(table if isinstance(table, str) else json.dumps(table), "hccl.json")
    assert caught.value.exit_code == 2
    assert str(caught.value).startswith("hccl.json: ")
    return caught.value


def test_devices_come_in_the_order_of_their_ranks() -> None:
    document = two_servers()
    document["server_list"].reverse()  # ranks 2, 3 stand first in the file

    table = parse_rank_table(json.dumps(document), "hccl.json")

    assert table.devices[2] == Device(2, 0, "10.0.0.1", "192.168.1.1")
    assert [device.rank for device in table.devices] == [0, 1, 2, 3]
    assert table.servers == ("10.0.0.0", "10.0.0.1")


@pytest.mark.parametrize(
    ("name", "servers", "ranks"), [("1x2", 1, 2), ("1x8", 1, 8), ("2x8", 2, 16)]
)
def test_every_example_is_a_valid_table(name: str, servers: int, ranks: int) -> None:
    path = EXAMPLES / f"hccl_{name}.json"
    table = parse_rank_table(path.read_text(), path.name)
    assert (len(table.servers), table.rank_size) == (servers, ranks)


def test_keys_that_hccl_ignores_are_ignored() -> None:
    document = two_servers()
    document["server_list"][0]["host_nic_ip"] = "reserve"
    assert parse_rank_table(json.dumps(document), "hccl.json").rank_size == 4


def test_server_count_may_be_left_out() -> None:
    document = two_servers()
    del document["server_count"]
    assert parse_rank_table(json.dumps(document), "hccl.json").rank_size == 4


def test_one_server_needs_no_device_addresses() -> None:
    document = two_servers() | {"server_count": "1"}
    del document["server_list"][1]
    for device in document["server_list"][0]["device"]:
        del device["device_ip"]
    assert parse_rank_table(json.dumps(document), "hccl.json").devices[1].device_ip == ""


def test_a_device_may_have_several_addresses() -> None:
    document = two_servers()
    document["server_list"][0]["device"][0]["device_ip"] = "192.168.7.1,fe80::1"
    table = parse_rank_table(json.dumps(document), "hccl.json")
    assert table.devices[0].device_ip == "192.168.7.1,fe80::1"


def device(table: Table, server: int, index: int) -> Table:
    found: Table = table["server_list"][server]["device"][index]
    return found


BROKEN: dict[str, tuple[Callable[[Table], object], str, str]] = {
    # what is done to the table -> the JSON path and a word of the message
    "rank_id as a number": (
        lambda t: device(t, 0, 1).update(rank_id=1),
        "$.server_list[0].device[1].rank_id",
        'write "1"',
    ),
    "rank_id that is no number": (
        lambda t: device(t, 0, 1).update(rank_id="one"),
        "$.server_list[0].device[1].rank_id",
        "'one' is not a number",
    ),
    "rank_id missing": (
        lambda t: device(t, 1, 0).pop("rank_id"),
        "$.server_list[1].device[0].rank_id",
        "missing",
    ),
    "rank twice": (
        lambda t: device(t, 1, 0).update(rank_id="1"),
        "$.server_list[1].device[0].rank_id",
        "rank 1 is also $.server_list[0].device[1]",
    ),
    "gap in the ranks": (
        lambda t: device(t, 1, 1).update(rank_id="7"),
        "$.server_list[1].device[1].rank_id",
        "number the ranks 0 to 3",
    ),
    "device_id as a number": (
        lambda t: device(t, 0, 0).update(device_id=0),
        "$.server_list[0].device[0].device_id",
        "not a string",
    ),
    "device twice": (
        lambda t: device(t, 1, 1).update(device_id="0"),
        "$.server_list[1].device[1].device_id",
        "device 0 of 10.0.0.1 is also $.server_list[1].device[0]",
    ),
    "device_ip twice": (
        lambda t: device(t, 1, 1).update(device_ip="192.168.0.1"),
        "$.server_list[1].device[1].device_ip",
        "192.168.0.1 is also $.server_list[0].device[0]",
    ),
    "device_ip that is no address": (
        lambda t: device(t, 0, 0).update(device_ip="192.168.0.256"),
        "$.server_list[0].device[0].device_ip",
        "no IP address",
    ),
    "device_ip missing with several servers": (
        lambda t: device(t, 0, 0).pop("device_ip"),
        "$.server_list[0].device[0].device_ip",
        "hccn_tool",
    ),
    "server twice": (
        lambda t: t["server_list"][1].update(server_id="10.0.0.0"),
        "$.server_list[1].server_id",
        "'10.0.0.0' is also $.server_list[0]",
    ),
    "server without a name": (
        lambda t: t["server_list"][1].update(server_id=""),
        "$.server_list[1].server_id",
        "at least 1 character",
    ),
    "server without devices": (
        lambda t: t["server_list"][1].update(device=[]),
        "$.server_list[1].device",
        "at least 1 item",
    ),
    "no servers": (lambda t: t.update(server_list=[]), "$.server_list", "at least 1 item"),
    "server_count wrong": (
        lambda t: t.update(server_count="3"),
        "$.server_count",
        "3, but server_list holds 2",
    ),
    "server_count as a number": (
        lambda t: t.update(server_count=2),
        "$.server_count",
        'write "2"',
    ),
    "status missing": (lambda t: t.pop("status"), "$.status", "missing"),
    "status initializing": (
        lambda t: t.update(status="initializing"),
        "$.status",
        "not filled in yet",
    ),
    "status unknown": (lambda t: t.update(status="done"), "$.status", "write 'completed'"),
    "version of another format": (
        lambda t: t.update(version="1.2"),
        "$.version",
        "'1.2' is not read; versions that are read: '1.0'",
    ),
    "version as a number": (lambda t: t.update(version=1.0), "$.version", "1.0 is not read"),
    "version missing": (lambda t: t.pop("version"), "$.version", "missing"),
}


@pytest.mark.parametrize("rule", BROKEN)
def test_a_broken_rule_is_named_with_its_place_and_its_fix(rule: str) -> None:
    break_it, path, word = BROKEN[rule]
    table = two_servers()
    break_it(table)

    error = refuse(table)

    assert path in [problem.where for problem in error.problems]
    assert word in str(error)


def test_every_problem_of_a_table_is_told_at_once() -> None:
    table = two_servers()
    for entry in (device(table, 0, 0), device(table, 1, 1)):
        entry["rank_id"] = int(entry["rank_id"])
    assert len(refuse(table).problems) == 2


def test_text_that_is_no_json_is_refused_with_its_line() -> None:
    error = refuse('{"version": "1.0",\n // a comment\n}')
    assert error.problems[0].where.startswith("line 2")
    assert "comments are not allowed" in str(error)


def test_json_that_is_no_object_is_refused() -> None:
    assert refuse("[]").problems[0].where == "$"


def test_simulated_ranks_need_no_table() -> None:
    table = simulated_rank_table(3)
    assert [(device.rank, device.device_id) for device in table.devices] == [(0, 0), (1, 1), (2, 2)]
    assert len(table.servers) == 1
