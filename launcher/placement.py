"""Decide where each rank runs, and all that it is told. Pure: starts nothing, reads no file."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from launcher.errors import HostError, JobError
from launcher.host import Host
from launcher.job import Job
from launcher.rank_table import Device, RankTable, simulated_rank_table
from launcher.run_folder import RunFolder
from launcher.visible_devices import own_numbers, visible_devices
from workers.spec import WorkerSpec

# What an earlier or outer job left in the environment would make a rank believe that it is
# somebody else; the ranks of this job are told everything anew.
STALE_PREFIXES = ("MS_", "OMPI_", "PMI_", "PMIX_", "RANK_")
STALE_NAMES = frozenset({"DEVICE_ID", "MINDSPORE_HCCL_CONFIG_PATH"})
THREAD_VARIABLES = ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS")
ON_THE_HOST = ("simulated", "cpu")  # runtimes that need no device
LOG_LEVEL = ("GLOG_v", "3")  # MindSpore's errors only, unless the user set it


@dataclass(frozen=True)
class Placement:
    """Every rank of a job, and what it runs on."""

    specs: tuple[WorkerSpec, ...]  # specs[rank]
    headline: str  # for people: how many ranks, on what


def place(
    job: Job,
    given_table: RankTable | None,
    host: Host,
    folder: RunFolder,
    environment: Mapping[str, str],
) -> Placement:
    """Return one spec for each rank.

    Args:
        given_table: the rank table that the job names, if it names one.
        environment: of the parent; ranks get it without what is stale, and with their own.

    Raises:
        JobError: the job does not say how many ranks, or says it twice and differently.
        HostError: the devices that the job asks for are not here.
    """
    table = resolve_table(job, given_table)
    runtime = choose_runtime(job, table, host)
    numbers: Mapping[int, int] = {}
    if runtime not in ON_THE_HOST:
        _check_devices(job, table, given_table, host)
        if given_table is not None and _kind(job) == "Ascend":
            device_ids = (device.device_id for device in table.devices)
            numbers = own_numbers(device_ids, visible_devices(environment))
    threads = job.threads or max(1, host.cores // table.rank_size)
    base = clean_environment(environment, threads)
    if given_table is not None:
        base["RANK_TABLE_FILE"] = base["MINDSPORE_HCCL_CONFIG_PATH"] = str(folder.rank_table)
    specs = tuple(
        WorkerSpec(
            rank=device.rank,
            rank_size=table.rank_size,
            device_id=device.device_id,
            server_id=device.server_id,
            device=runtime,
            network=job.network,
            predict_data=job.data,
            task=job.task,
            loss=job.loss,
            metrics=job.metrics,
            batch_size=job.batch_size,
            dataset_sink_mode=job.dataset_sink_mode,
            checkpoint=job.checkpoint,
            strategy=str(job.strategy) if job.strategy else None,
            key_file=str(job.key_file) if job.key_file else None,
            allow_missing=job.allow_missing,
            search_path=tuple(map(str, job.search_path)),
            threads=threads,
            environment=base | _identity(device, table, numbers),
        )
        for device in table.devices
    )
    return Placement(specs, _headline(job, runtime, table, host))


def clean_environment(environment: Mapping[str, str], threads: int) -> dict[str, str]:
    """Return the environment of a child: nothing stale in it, and its share of the cores."""
    kept = {
        name: value
        for name, value in environment.items()
        if not name.startswith(STALE_PREFIXES) and name not in STALE_NAMES
    }
    return dict([LOG_LEVEL]) | kept | dict.fromkeys(THREAD_VARIABLES, str(threads))


def choose_runtime(job: Job, table: RankTable, host: Host) -> str:
    """Return the runtime of every rank, one of the words of ``WorkerSpec.device``."""
    if job.device == "cpu" or (job.device == "auto" and not host.ascend_devices):
        return "simulated" if table.rank_size > 1 else "cpu"
    if table.rank_size == 1:
        return "single"
    return "gpu" if job.device == "gpu" else "ascend"


def resolve_table(job: Job, given: RankTable | None) -> RankTable:
    """Return the table that the job names, or one of as many simulated ranks as it asks for."""
    if given is None:
        if job.ranks is None:
            raise JobError.about("ranks", "missing", "add --ranks N or --rank-table FILE")
        return simulated_rank_table(job.ranks)
    if job.ranks not in (None, given.rank_size):
        what = f"{job.ranks}, but the rank table {job.rank_table} names {given.rank_size}"
        raise JobError.about("ranks", what, "leave one of them out")
    return given


def _check_devices(job: Job, table: RankTable, given: RankTable | None, host: Host) -> None:
    kind = _kind(job)
    here = host.gpu_devices if kind == "GPU" else host.ascend_devices
    instead = "run the job on simulated ranks with --device cpu"
    if not here:
        raise HostError(f"no {kind} device is visible on this host", instead)
    if len(table.servers) > 1:
        servers = ", ".join(table.servers)
        what = f"the rank table spans {len(table.servers)} servers ({servers})"
        raise HostError(what, f"name a table of one server, or {instead}")
    if given is None and table.rank_size > 1 and kind == "Ascend":
        what = f"{table.rank_size} Ascend ranks find each other through a rank table"
        raise HostError(what, f"add --rank-table FILE, or {instead}")
    for device in table.devices:
        if device.device_id not in here:
            seen = ", ".join(map(str, sorted(here)))
            what = f"rank {device.rank} needs {kind} device {device.device_id}, not visible here"
            raise HostError(what, f"visible are {seen}; or {instead}")


def _identity(device: Device, table: RankTable, numbers: Mapping[int, int]) -> dict[str, str]:
    """Return who a rank is; ``numbers`` are those by which processes know their devices."""
    return {
        "RANK_ID": str(device.rank),
        "RANK_SIZE": str(table.rank_size),
        "DEVICE_ID": str(numbers.get(device.device_id, device.device_id)),
    }


def _kind(job: Job) -> str:
    return "GPU" if job.device == "gpu" else "Ascend"


def _headline(job: Job, runtime: str, table: RankTable, host: Host) -> str:
    ranks = f"{table.rank_size} rank{'s' if table.rank_size > 1 else ''}"
    if runtime not in ON_THE_HOST:
        return f"{ranks} on {_kind(job)} devices of this host"
    cores = f"{host.cores} core{'s' if host.cores > 1 else ''}"
    if runtime == "cpu":
        return f"{ranks} on the CPU of this host ({cores})"
    stand_in = f", standing in for {len(table.servers)} servers" if len(table.servers) > 1 else ""
    return f"{ranks}, simulated on this host ({cores}){stand_in}"
