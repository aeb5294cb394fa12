"""Which cores each rank runs on."""

from __future__ import annotations

from pathlib import Path

import pytest

from launcher.binding import bind
from launcher.host import Host, look_around
from launcher.rank_table.table import Device

TWO_NODES = Host(cpus=tuple(range(8)), numa=((0, 1, 4, 5), (2, 3, 6, 7)))


def devices(count: int, first: int = 0) -> list[Device]:
    return [Device(rank, first + rank, "host") for rank in range(count)]


def test_unbound_ranks_may_run_anywhere() -> None:
    assert bind("none", TWO_NODES, devices(2)) == {0: (), 1: ()}


def test_each_rank_gets_a_share_of_cores_that_are_neighbours() -> None:
    assert bind("cores", TWO_NODES, devices(4)) == {0: (0, 1), 1: (4, 5), 2: (2, 3), 3: (6, 7)}
    assert bind("cores", TWO_NODES, devices(3)) == {0: (0, 1), 1: (4, 5), 2: (2, 3)}


def test_more_ranks_than_cores_take_turns() -> None:
    assert bind("cores", Host(cpus=(4, 6)), devices(3)) == {0: (4,), 1: (6,), 2: (4,)}


def test_a_rank_stays_on_the_node_of_its_device() -> None:
    host = Host(cpus=tuple(range(8)), numa=TWO_NODES.numa, ascend_devices=frozenset(range(8)))
    bound = bind("numa", host, devices(2, first=3))
    assert bound == {0: (0, 1, 4, 5), 1: (2, 3, 6, 7)}  # devices 3 and 4 of 0-7


def test_cores_that_this_process_may_not_use_are_left_out() -> None:
    host = Host(cpus=(0, 1, 2), numa=TWO_NODES.numa)
    assert bind("numa", host, devices(2)) == {0: (0, 1), 1: (2,)}


def test_one_node_is_nothing_to_bind_to() -> None:
    assert bind("numa", Host(cpus=(0, 1), numa=((0, 1),)), devices(2)) == {0: (), 1: ()}


@pytest.mark.parametrize(
    ("text", "cpus"), [("0-3,8-9\n", (0, 1, 2, 3, 8, 9)), ("5", (5,)), ("\n", ())]
)
def test_nodes_are_read_as_the_kernel_lists_them(
    tmp_path: Path, text: str, cpus: tuple[int, ...]
) -> None:
    (tmp_path / "node0").mkdir()
    (tmp_path / "node0" / "cpulist").write_text(text)
    assert look_around(nodes=tmp_path).numa == (cpus,)
