"""Which server of a rank table this host is."""

from __future__ import annotations

from collections.abc import Mapping

import pytest

from launcher.errors import HostError
from launcher.host import Host
from launcher.own_server import find_own_server
from launcher.rank_table.table import Device, RankTable


def table_of(*servers: str, aliases: Mapping[str, tuple[str, ...]] | None = None) -> RankTable:
    devices = tuple(Device(rank, 0, server) for rank, server in enumerate(servers))
    return RankTable(devices, aliases or {})


def host(name: str = "worker-3", *addresses: str) -> Host:
    return Host(cpus=(0,), name=name, addresses=("127.0.0.1", "::1", *addresses))


ADDRESSES = table_of("10.0.0.1", "10.0.0.2")


def test_an_address_of_the_host_tells_it() -> None:
    assert find_own_server(ADDRESSES, host("vm", "172.17.0.1", "10.0.0.2"), {}) == "10.0.0.2"


def test_an_address_may_be_written_in_several_ways() -> None:
    table = table_of("fd00::1", "fd00:0:0::2")
    assert find_own_server(table, host("vm", "fd00::2"), {}) == "fd00:0:0::2"


def test_the_name_of_the_host_tells_it() -> None:
    assert find_own_server(table_of("worker-2", "Worker-3"), host(), {}) == "Worker-3"


def test_a_name_may_lack_its_domain() -> None:
    table = table_of("worker-2.cluster", "worker-3.cluster")
    assert find_own_server(table, host("worker-3"), {}) == "worker-3.cluster"
    assert find_own_server(table_of("worker-2", "worker-3"), host("worker-3.lan"), {}) == "worker-3"


def test_a_whole_name_wins_over_one_without_its_domain() -> None:
    table = table_of("node.east", "node.west")
    assert find_own_server(table, host("node.west"), {}) == "node.west"


def test_what_else_the_table_says_of_a_server_tells_it() -> None:
    table = table_of("node_0", "node_1", aliases={"node_1": ("172.16.0.101",)})
    assert find_own_server(table, host("vm", "172.16.0.101"), {}) == "node_1"


def test_loopback_addresses_tell_nothing() -> None:
    aliases = {"a": ("127.0.0.1",), "b": ("127.0.0.1", "10.0.0.2")}
    assert find_own_server(table_of("a", "b", aliases=aliases), host("vm", "10.0.0.2"), {}) == "b"


def test_the_only_server_is_this_host() -> None:
    assert find_own_server(table_of("SERVER_ID_SV1"), host(), {}) == "SERVER_ID_SV1"


def test_slurm_is_asked_last() -> None:
    table = table_of("node1", "node2")
    environment = {"SLURMD_NODENAME": "node2"}
    assert find_own_server(table, host("container"), environment) == "node2"
    assert find_own_server(table, host("node1"), environment) == "node1"


def test_two_candidates_are_an_error_that_lists_them() -> None:
    with pytest.raises(HostError) as caught:
        find_own_server(ADDRESSES, host("vm", "10.0.0.1", "10.0.0.2"), {})
    assert str(caught.value) == (
        "this host may be 2 servers of the rank table: 10.0.0.1 (10.0.0.1); 10.0.0.2 (10.0.0.2);"
        " say which with --node SERVER_ID"
    )
    assert caught.value.exit_code == 2


def test_no_candidate_is_an_error_that_lists_both_sides() -> None:
    aliases = {"10.0.0.1": ("pod0",)}
    table = table_of("10.0.0.1", "10.0.0.2", aliases=aliases)
    with pytest.raises(HostError) as caught:
        find_own_server(table, host("vm", "192.168.0.7"), {"SLURMD_NODENAME": "n9"})
    assert "this host (vm, 192.168.0.7, n9) is none of" in str(caught.value)
    assert "10.0.0.1 = pod0, 10.0.0.2" in str(caught.value)


@pytest.mark.parametrize("node", ["10.0.0.2", "pod1", "1"])
def test_the_user_may_say_it(node: str) -> None:
    table = table_of("10.0.0.1", "10.0.0.2", aliases={"10.0.0.2": ("pod1",)})
    assert find_own_server(table, host("vm", "10.0.0.1"), {}, node) == "10.0.0.2"


@pytest.mark.parametrize("node", ["2", "10.0.0.3", ""])
def test_what_the_user_says_must_be_a_server(node: str) -> None:
    with pytest.raises(HostError, match="none of the servers.*known are 10.0.0.1, 10.0.0.2"):
        find_own_server(ADDRESSES, host("vm", "10.0.0.1"), {}, node)


def test_what_the_user_says_may_not_fit_two_servers() -> None:
    with pytest.raises(HostError, match="--node node is more than one"):
        find_own_server(table_of("node.east", "node.west"), host(), {}, "node")


def test_a_cloud_names_the_pod_in_rank_id() -> None:
    table = RankTable(
        (Device(0, 0, "10.0.0.1"), Device(1, 0, "10.0.0.2")),
        {"10.0.0.1": ("pod-a",), "10.0.0.2": ("pod-b",)},
    )
    assert find_own_server(table, Host(cpus=(0,)), {"RANK_ID": "pod-b"}) == "10.0.0.2"
    with pytest.raises(HostError):  # a number is a rank
        find_own_server(table, Host(cpus=(0,)), {"RANK_ID": "1"})
