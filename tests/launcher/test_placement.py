"""Placement: where each rank runs and what it is told."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from pathlib import Path

import pytest

from launcher.errors import HostError, JobError
from launcher.host import Host, look_around
from launcher.job import Job
from launcher.placement import Placement, count_ranks, place
from launcher.rank_table.table import Device, RankTable
from launcher.run_folder import RunFolder
from launcher.site import Site

MakeJob = Callable[..., Job]
LAPTOP = Host(cpus=(0, 1, 2, 3))
ASCEND = Host(cpus=tuple(range(192)), ascend_devices=frozenset(range(8)))
TWO_SERVERS = RankTable(
    tuple(Device(rank, rank % 2, f"10.0.0.{rank // 2}", f"192.168.0.{rank}") for rank in range(4))
)
ONE_SERVER = RankTable(tuple(Device(rank, 7 - rank, "10.0.0.1") for rank in range(8)))


def placed(
    job: Job,
    host: Host = LAPTOP,
    table: RankTable | None = None,
    environment: Mapping[str, str] | None = None,
) -> Placement:
    ranks = tuple(range(count_ranks(job, table)))
    site = Site(ranks=ranks, host=host, environment=environment or {})
    return place(job, table, [site], RunFolder(Path("/out")))


def test_without_a_device_every_rank_is_simulated(make_job: MakeJob) -> None:
    specs = placed(make_job(ranks=3)).specs
    assert [(spec.rank, spec.device_id, spec.device) for spec in specs] == [
        (0, 0, "simulated"),
        (1, 1, "simulated"),
        (2, 2, "simulated"),
    ]


def test_one_rank_without_a_device_runs_the_whole_network(make_job: MakeJob) -> None:
    assert placed(make_job(ranks=1)).specs[0].device == "cpu"


def test_ranks_that_share_the_data_run_the_whole_network(make_job: MakeJob) -> None:
    job = make_job(parallel_mode="data_parallel")
    assert [(s.device, s.shares_data) for s in placed(job).specs] == [("cpu", True)] * 2
    assert not placed(make_job(ranks=1, parallel_mode="data_parallel")).specs[0].shares_data


def test_a_rank_is_told_the_whole_job(make_job: MakeJob) -> None:
    job = make_job(checkpoint="/w/rank_{rank}", strategy="/w/s.ckpt", search_path=["/src"])
    spec = placed(job).specs[1]
    assert (spec.network, spec.predict_data) == ("net:make", "net:data")
    assert (spec.checkpoint, spec.strategy) == ("/w/rank_{rank}", "/w/s.ckpt")
    assert spec.search_path[0] == "/src"
    assert json.loads(spec.to_json())["rank_size"] == 2


def test_a_rank_is_told_who_it_is(make_job: MakeJob) -> None:
    specs = placed(make_job(ranks=None), table=TWO_SERVERS).specs
    environment = specs[3].environment
    assert (environment["RANK_ID"], environment["RANK_SIZE"]) == ("3", "4")
    assert environment["DEVICE_ID"] == "1"
    assert environment["RANK_TABLE_FILE"] == "/out/rank_table.json"
    assert environment["MINDSPORE_HCCL_CONFIG_PATH"] == "/out/rank_table.json"


def test_no_rank_table_is_named_where_none_was_given(make_job: MakeJob) -> None:
    assert "RANK_TABLE_FILE" not in placed(make_job()).specs[0].environment


def test_what_another_job_left_in_the_environment_is_dropped(make_job: MakeJob) -> None:
    stale = {
        "MS_ROLE": "MS_WORKER",
        "OMPI_COMM_WORLD_RANK": "5",
        "RANK_TABLE_FILE": "/old.json",
        "RANK_ID": "9",
        "DEVICE_ID": "9",
    }
    given = stale | {"PYTHONPATH": "/src"}
    environment = placed(make_job(), environment=given).specs[0].environment
    assert environment["PYTHONPATH"] == "/src"
    assert environment["RANK_ID"] == environment["DEVICE_ID"] == "0"
    assert not environment.keys() & {"MS_ROLE", "OMPI_COMM_WORLD_RANK", "RANK_TABLE_FILE"}


def test_the_environment_that_is_passed_in_stays_as_it_is(make_job: MakeJob) -> None:
    environment = {"MS_ROLE": "MS_WORKER"}
    placed(make_job(), environment=environment)
    assert environment == {"MS_ROLE": "MS_WORKER"}


def test_the_log_level_of_mindspore_is_the_users_if_there_is_one(make_job: MakeJob) -> None:
    assert placed(make_job()).specs[0].environment["GLOG_v"] == "3"
    assert placed(make_job(), environment={"GLOG_v": "1"}).specs[0].environment["GLOG_v"] == "1"


@pytest.mark.parametrize(
    ("ranks", "threads", "wanted"), [(2, None, 2), (3, None, 1), (8, None, 1), (8, 3, 3)]
)
def test_cores_are_shared_out_and_nobody_gets_less_than_one(
    make_job: MakeJob, ranks: int, threads: int | None, wanted: int
) -> None:
    spec = placed(make_job(ranks=ranks, threads=threads), Host(cpus=(0, 1, 2, 3))).specs[0]
    assert spec.threads == wanted
    assert spec.environment["OMP_NUM_THREADS"] == str(wanted)


def test_all_ranks_of_several_servers_are_simulated_here(make_job: MakeJob) -> None:
    placement = placed(make_job(ranks=4), table=TWO_SERVERS)
    assert {spec.device for spec in placement.specs} == {"simulated"}
    assert placement.specs[3].server_id == "10.0.0.1"
    assert placement.headline == (
        "4 ranks, simulated on this host (4 cores), standing in for 2 servers"
    )


def test_devices_are_used_where_there_are_any(make_job: MakeJob) -> None:
    placement = placed(make_job(ranks=8), ASCEND, ONE_SERVER)
    assert {spec.device for spec in placement.specs} == {"ascend"}
    assert placement.specs[0].device_id == 7
    assert placement.headline == "8 ranks on Ascend devices of this host"


def test_cpu_means_simulated_ranks_even_beside_devices(make_job: MakeJob) -> None:
    assert placed(make_job(device="cpu"), ASCEND).specs[0].device == "simulated"


def test_one_rank_on_a_device_needs_no_parallel_context(make_job: MakeJob) -> None:
    assert placed(make_job(ranks=1), ASCEND).specs[0].device == "single"


@pytest.mark.parametrize("device", ["ascend", "gpu"])
def test_a_device_that_is_not_here_is_an_error(make_job: MakeJob, device: str) -> None:
    with pytest.raises(HostError, match="device is visible on this host.*--device cpu") as caught:
        placed(make_job(device=device))
    assert caught.value.exit_code == 2


def test_a_device_of_the_table_that_is_not_visible_is_an_error(make_job: MakeJob) -> None:
    host = Host(cpus=tuple(range(8)), ascend_devices=frozenset({4, 5, 6, 7}))
    with pytest.raises(HostError, match="rank 4 needs Ascend device 3.*visible are 4, 5, 6, 7"):
        placed(make_job(ranks=8), host, ONE_SERVER)


def test_a_rank_asks_for_its_device_by_the_number_that_it_is_shown(make_job: MakeJob) -> None:
    environment = {"ASCEND_RT_VISIBLE_DEVICES": "7,6,5,4,3,2,1,0"}
    specs = placed(make_job(ranks=8), ASCEND, ONE_SERVER, environment).specs
    assert (specs[0].device_id, specs[0].environment["DEVICE_ID"]) == (7, "0")
    assert (specs[5].device_id, specs[5].environment["DEVICE_ID"]) == (2, "5")


def test_a_device_of_the_table_that_ranks_are_not_shown_is_an_error(make_job: MakeJob) -> None:
    environment = {"ASCEND_RT_VISIBLE_DEVICES": "0,1"}
    with pytest.raises(HostError, match="device 7 of the rank table is hidden by ASCEND_RT_VIS"):
        placed(make_job(ranks=8), ASCEND, ONE_SERVER, environment)


def test_simulated_ranks_are_shown_no_device(make_job: MakeJob) -> None:
    environment = {"ASCEND_RT_VISIBLE_DEVICES": "0"}
    spec = placed(make_job(ranks=8), table=ONE_SERVER, environment=environment).specs[0]
    assert (spec.device, spec.environment["DEVICE_ID"]) == ("simulated", "7")


def test_devices_of_several_servers_are_not_started_on_one_host(make_job: MakeJob) -> None:
    with pytest.raises(HostError, match="ranks of 2 servers .* --engine hosts"):
        placed(make_job(ranks=4), ASCEND, TWO_SERVERS)


def test_several_ascend_ranks_need_a_rank_table(make_job: MakeJob) -> None:
    with pytest.raises(HostError, match="add --rank-table"):
        placed(make_job(ranks=8), ASCEND)


def test_ranks_that_disagree_with_the_table_are_an_error(make_job: MakeJob) -> None:
    with pytest.raises(JobError, match="ranks: 2, but the rank table .* names 4"):
        placed(make_job(ranks=2), table=TWO_SERVERS)


def test_somebody_must_say_how_many_ranks(make_job: MakeJob) -> None:
    with pytest.raises(JobError, match="add --ranks N or --rank-table FILE"):
        placed(make_job(ranks=None))


def test_a_host_has_the_devices_whose_files_are_numbered(tmp_path: Path) -> None:
    for name in ("davinci0", "davinci10", "davinci_manager", "nvidia0", "nvidiactl", "null"):
        (tmp_path / name).touch()
    host = look_around(tmp_path)
    assert (host.ascend_devices, host.gpu_devices) == ({0, 10}, {0})
    assert host.cores >= 1


def test_a_host_knows_its_name_and_its_addresses() -> None:
    host = look_around()
    assert host.name
    assert all("%" not in address for address in host.addresses)
