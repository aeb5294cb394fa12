"""Which process starts which rank."""

from __future__ import annotations

from launcher.cluster.homes import Member, choose_homes
from launcher.host import Host
from launcher.site import Site


def slot(rank: int, machine: str) -> Site:
    host = Host(cpus=(0,), machine=machine)
    return Site(ranks=(rank,), host=host, environment={}, is_slot=True)


def members(**machines: str) -> list[Member]:
    return [
        Member(name.encode(), name, slot(int(name.removeprefix("rank")), machine))
        for name, machine in machines.items()
    ]


def homes(own: Site | None, are_forks: bool) -> dict[int, str]:
    came = members(rank3="b", rank2="b", rank1="a")
    return {rank: home.name for rank, home in choose_homes(came, own, are_forks).items()}


def test_one_process_of_each_host_forks_all_its_ranks() -> None:
    assert homes(slot(0, "a"), are_forks=True) == {2: "rank2", 3: "rank2"}  # 0 and 1: the head


def test_a_head_without_ranks_leaves_them_to_the_others() -> None:
    assert homes(None, are_forks=True) == {1: "rank1", 2: "rank2", 3: "rank2"}


def test_ranks_that_are_no_forks_are_started_by_their_own_slots() -> None:
    assert homes(slot(0, "a"), are_forks=False) == {1: "rank1", 2: "rank2", 3: "rank3"}
