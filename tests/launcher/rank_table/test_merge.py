"""Tables of several servers made into one."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from launcher.errors import RankTableError
from launcher.rank_table.hccn import count_up
from launcher.rank_table.make import make_table
from launcher.rank_table.merge import merge_tables
from launcher.rank_table.reading import Reading

Document = dict[str, Any]


def server(server_id: str, first_address: str, devices: int = 2) -> Document:
    ids = range(devices)
    return make_table(server_id, ids, count_up(first_address, ids))


def test_servers_are_numbered_in_the_order_of_their_ids_as_texts(
    read: Callable[..., Reading],
) -> None:
    # The order of the arguments, which a shell makes, has no say: .9 comes after .10
    documents = {
        "a.json": server("10.0.0.9", "192.168.9.1"),
        "b.json": server("10.0.0.10", "192.168.10.1"),
    }
    merged = merge_tables(documents)
    assert merged == merge_tables(dict(reversed(documents.items())))
    reading = read(merged)
    assert reading.findings == ()
    assert reading.table is not None
    assert reading.table.servers == ("10.0.0.10", "10.0.0.9")
    assert merged["server_count"] == "2"


def test_ranks_of_a_server_keep_their_order() -> None:
    first = server("a", "10.0.0.1")
    first["server_list"][0]["device"].reverse()  # rank 1 stands first
    first["server_list"][0]["device"][0]["rank_id"] = "0"  # and is rank 0 now: device 1
    first["server_list"][0]["device"][1]["rank_id"] = "1"
    merged = merge_tables({"a": first, "b": server("b", "10.0.1.1")})
    ranks = [
        (entry["server_id"], device["device_id"], device["rank_id"])
        for entry in merged["server_list"]
        for device in entry["device"]
    ]
    assert ranks == [("a", "1", "0"), ("a", "0", "1"), ("b", "0", "2"), ("b", "1", "3")]


def test_keys_that_hccl_ignores_are_kept() -> None:
    first = server("a", "10.0.0.1") | {"note": "rack 7"}
    first["server_list"][0]["container_ip"] = "172.17.0.2"
    first["server_list"][0]["device"][0]["numa_id"] = "0"
    merged = merge_tables({"a": first, "b": server("b", "10.0.1.1")})
    assert merged["note"] == "rack 7"
    assert merged["server_list"][0]["container_ip"] == "172.17.0.2"
    assert merged["server_list"][0]["device"][0]["numa_id"] == "0"


def test_servers_of_one_super_pod_come_together(sample: Callable[[str], Document]) -> None:
    whole = sample("super_pods_4x4")
    parts = {
        f"{number}.json": whole
        | {
            "server_count": "1",
            "server_list": [entry],
            "super_pod_list": [
                {"super_pod_id": str(number // 2), "server_list": [{"server_id": f"node_{number}"}]}
            ],
        }
        for number, entry in enumerate(whole["server_list"])
    }
    assert merge_tables(parts) == whole


def test_a_server_twice_is_refused() -> None:
    documents = {"a.json": server("a", "10.0.0.1"), "b.json": server("a", "10.0.1.1")}
    with pytest.raises(RankTableError) as caught:
        merge_tables(documents)
    assert str(caught.value).startswith(
        "b.json: $.server_list[0].server_id: 'a' is also a.json: $.server_list[0].server_id"
    )


def test_an_address_twice_is_refused() -> None:
    documents = {"a.json": server("a", "10.0.0.1"), "b.json": server("b", "10.0.0.2")}
    with pytest.raises(RankTableError, match=r"b\.json: .*device\[0\]\.device_ip: '10\.0\.0\.2'"):
        merge_tables(documents)


def test_tables_that_contradict_each_other_are_refused() -> None:
    documents = {
        "a.json": server("a", "10.0.0.1"),
        "b.json": server("b", "10.0.1.1") | {"version": "1.2"},
    }
    with pytest.raises(RankTableError, match=r"b\.json: \$\.version: '1\.2', but a\.json has"):
        merge_tables(documents)
