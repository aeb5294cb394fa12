"""Placement of ranks on several hosts and in slots of mpirun and srun."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path

import pytest

from launcher.engines.choice import choose_engine
from launcher.errors import HostError
from launcher.host import Host
from launcher.job import Job
from launcher.placement import place
from launcher.rank_table.table import Device, RankTable
from launcher.run_folder import RunFolder
from launcher.site import Site
from workers.spec import WorkerSpec

MakeJob = Callable[..., Job]
HOSTS = [
    Host(cpus=(0, 1, 2, 3), name=name, addresses=(address,), has_mpi=True, machine=name)
    for name, address in (("a", "10.0.0.1"), ("b", "10.0.0.2"))
]
NPU_HOSTS = [replace(host, ascend_devices=frozenset(range(8))) for host in HOSTS]
TABLE = RankTable(
    tuple(Device(rank, rank % 2, f"10.0.0.{rank // 2 + 1}", f"192.0.0.{rank}") for rank in range(4))
)


def slot(rank: int, host: Host, **environment: str) -> Site:
    told = {"OMPI_COMM_WORLD_RANK": str(rank), "PMIX_RANK": str(rank)} | environment
    return Site(ranks=(rank,), host=host, environment=told, is_slot=True)


def specs_on(
    sites: Sequence[Site], job: Job, given: RankTable | None = None
) -> tuple[WorkerSpec, ...]:
    return place(job, given, sites, RunFolder(Path("/out"))).specs


def test_a_site_survives_its_way_to_another_host() -> None:
    site = slot(3, NPU_HOSTS[0])
    assert Site.from_dict(json.loads(json.dumps(site.to_dict()))) == site


def test_slots_of_one_host_share_its_memory_and_its_cores(make_job: MakeJob) -> None:
    specs = specs_on([slot(rank, HOSTS[0]) for rank in range(2)], make_job())
    assert {(spec.transport, spec.threads, spec.server_id) for spec in specs} == {
        ("memory", 2, "localhost")
    }


def test_slots_of_several_hosts_reach_each_other_through_mpi(make_job: MakeJob) -> None:
    sites = [slot(rank, HOSTS[rank // 2]) for rank in (2, 0, 3, 1)]
    specs = specs_on(sites, make_job(ranks=4))
    assert [(s.rank, s.server_id, s.device_id, s.transport) for s in specs] == [
        (0, "a", 0, "mpi"),
        (1, "a", 1, "mpi"),
        (2, "b", 0, "mpi"),
        (3, "b", 1, "mpi"),
    ]


def test_ranks_that_have_left_mpi_cannot_be_started_again(make_job: MakeJob) -> None:
    def uses_mpi(*hosts: Host) -> bool:
        sites = [slot(rank, host) for rank, host in enumerate(hosts)]
        return place(make_job(), None, sites, RunFolder(Path("/out"))).uses_mpi

    assert uses_mpi(*HOSTS)
    assert not uses_mpi(HOSTS[0], HOSTS[0])
    assert uses_mpi(NPU_HOSTS[0], NPU_HOSTS[0])  # by MindSpore itself


def test_a_rank_keeps_the_mpi_variables_of_its_own_slot(make_job: MakeJob) -> None:
    sites = [slot(rank, HOSTS[0], LAUNCHER_HEAD="secret", MS_ROLE="MS_WORKER") for rank in (0, 1)]
    environment = specs_on(sites, make_job())[1].environment
    assert environment["OMPI_COMM_WORLD_RANK"] == environment["RANK_ID"] == "1"
    assert not environment.keys() & {"LAUNCHER_HEAD", "MS_ROLE"}


def test_a_slot_keeps_the_cores_that_mpirun_gave_it(make_job: MakeJob) -> None:
    sites = [slot(rank, replace(HOSTS[0], cpus=(rank,))) for rank in range(2)]
    assert [(spec.cores, spec.threads) for spec in specs_on(sites, make_job())] == [
        ((0,), 1),
        ((1,), 1),
    ]


def test_mindspore_is_told_of_a_rank_table_or_of_mpi_but_not_of_both(make_job: MakeJob) -> None:
    sites = [slot(rank, NPU_HOSTS[rank // 2]) for rank in range(4)]
    environment = specs_on(sites, make_job(ranks=4), TABLE)[3].environment
    assert environment["RANK_TABLE_FILE"] == "/out/rank_table.json"
    assert not any(name.startswith(("OMPI_", "PMIX_")) for name in environment)


def test_devices_under_mpi_need_no_rank_table(make_job: MakeJob) -> None:
    specs = specs_on([slot(rank, NPU_HOSTS[rank // 2]) for rank in range(4)], make_job(ranks=4))
    assert [(s.device, s.device_id) for s in specs] == [("ascend", number) for number in (0, 1) * 2]


def test_a_rank_that_mpirun_put_on_another_host_than_the_table_is_an_error(
    make_job: MakeJob,
) -> None:
    sites = [slot(rank, NPU_HOSTS[rank % 2]) for rank in range(4)]
    with pytest.raises(HostError, match="rank 1 is on 10.0.0.1 in the rank table, but mpirun"):
        specs_on(sites, make_job(ranks=4), TABLE)


def test_each_host_of_a_table_has_its_own_devices_and_files(make_job: MakeJob) -> None:
    sites = [
        Site(ranks=(0, 1), host=NPU_HOSTS[0], environment={"HOME": "/a"}),
        Site(ranks=(2, 3), host=NPU_HOSTS[1], environment={"HOME": "/b"}, rank_table="/b/t.json"),
    ]
    placement = place(make_job(ranks=4), TABLE, sites, RunFolder(Path("/out")))
    assert placement.headline == "4 ranks on Ascend devices of 2 hosts"
    told = [(s.environment["HOME"], s.environment["RANK_TABLE_FILE"]) for s in placement.specs]
    assert told == [("/a", "/out/rank_table.json")] * 2 + [("/b", "/b/t.json")] * 2


def without_mpi(site: Site) -> Site:
    return replace(site, environment={"SLURM_PROCID": "0"})


def without_mpi4py(site: Site) -> Site:
    return replace(site, host=replace(site.host, has_mpi=False))


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (without_mpi, "srun has started the ranks without MPI.*srun --mpi=pmix"),
        (without_mpi4py, "mpi4py is not installed on a; pip install"),
        (lambda site: replace(site, is_slot=False), "through MPI only; start them with --engine"),
    ],
)
def test_simulated_ranks_that_could_not_reach_each_other_are_refused(
    make_job: MakeJob, change: Callable[[Site], Site], words: str
) -> None:
    with pytest.raises(HostError, match=words):
        specs_on([change(slot(rank, HOSTS[rank])) for rank in range(2)], make_job())


def test_hosts_of_which_one_has_no_device_are_an_error(make_job: MakeJob) -> None:
    with pytest.raises(HostError, match="b has no Ascend device, but other hosts have"):
        specs_on([slot(0, NPU_HOSTS[0]), slot(1, HOSTS[1])], make_job())


@pytest.mark.parametrize(
    ("values", "host", "engine"),
    [
        ({}, NPU_HOSTS[0], "hosts"),
        ({}, HOSTS[0], "local"),  # nothing to run on: simulated, all of them here
        ({"device": "cpu"}, NPU_HOSTS[0], "local"),
        ({"engine": "hosts"}, HOSTS[0], "hosts"),
        ({"engine": "mpi"}, NPU_HOSTS[0], "mpi"),
    ],
)
def test_a_table_of_several_servers_starts_on_each_of_them_where_there_are_devices(
    make_job: MakeJob, values: Mapping[str, str], host: Host, engine: str
) -> None:
    assert choose_engine(make_job(**values), TABLE, host) == engine
