"""Decide where each rank runs, and all that it is told. Pure: starts nothing, reads no file."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

from launcher.binding import bind
from launcher.device_options import device_options, hccl_time_limits, require_possible
from launcher.errors import HostError, JobError
from launcher.job import Job
from launcher.needed_devices import kind_of_device, numbers_of_devices
from launcher.rank_table.table import SIMULATED_SERVER, Device, RankTable
from launcher.run_folder import RunFolder
from launcher.secret import HEAD_VARIABLE, SECRET_VARIABLE
from launcher.site import Site
from launcher.slot import MPI_PREFIXES, mpi_variables
from launcher.text import plural
from workers.resharding.remote.cache import cache_variables
from workers.spec import WorkerSpec

# What an earlier or outer job left in the environment would make a rank believe that it is
# somebody else; the ranks of this job are told everything anew.
STALE_PREFIXES = ("MS_", "RANK_", "CM_CHIEF_", "CM_WORKER_", *MPI_PREFIXES)
STALE_NAMES = frozenset(
    ("DEVICE_ID", "ASCEND_DEVICE_ID", "MINDSPORE_HCCL_CONFIG_PATH", "GROUP_INFO_FILE")
    + (SECRET_VARIABLE, HEAD_VARIABLE)  # not for the user's code
)
THREAD_VARIABLES = ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS")
ON_THE_HOST = ("simulated", "cpu")  # runtimes that need no device
MPI_INSTALL = "pip install 'ascend-slice-launcher[mpi]'"
LOG_LEVEL = ("GLOG_v", "3")  # MindSpore's errors only, unless the user set it


@dataclass(frozen=True)
class Placement:
    """Every rank of a job, and what it runs on."""

    specs: tuple[WorkerSpec, ...]  # specs[rank]
    headline: str  # for people: how many ranks, on what
    hosts: int = 1
    uses_mpi: bool = False  # which a process that has left it cannot join again

    def with_checkpoint(self, version: str) -> Placement:
        """Return the same, where each rank knows which files it must find."""
        specs = (replace(spec, checkpoint_version=version) for spec in self.specs)
        return replace(self, specs=tuple(specs))


def place(
    job: Job, given: RankTable | None, sites: Sequence[Site], folder: RunFolder
) -> Placement:
    """Return one spec for each rank.

    Args:
        given: the rank table that the job names, if it names one.
        sites: where ranks run; each rank is of exactly one of them.

    Raises:
        HostError: the devices that the job asks for are not there.
        JobError: the ranks cannot do what the job says.
    """
    table = given or _table_of(sites)
    runtime = _choose_runtime(job, table, sites)
    require_possible(job, runtime, table.rank_size)
    threads = _share_of_cores(sites)
    transport = _choose_transport(sites) if runtime == "simulated" else "memory"
    limits = hccl_time_limits(job) if runtime == "ascend" else {}
    one_host = len({site.host.machine for site in sites}) == 1
    specs: list[WorkerSpec] = []
    for site in sites:
        devices = [table.devices[rank] for rank in site.ranks]
        numbers: Mapping[int, int] = {}
        if runtime not in ON_THE_HOST:
            numbers = numbers_of_devices(job, devices, given, site)
        shared = cache_variables(job.cache, job.cache_size)
        if given is not None:
            path = site.rank_table or str(folder.rank_table)
            shared |= {"RANK_TABLE_FILE": path, "MINDSPORE_HCCL_CONFIG_PATH": path}
        elif site.is_slot:  # MindSpore takes either a rank table or MPI
            shared |= mpi_variables(site.environment)
        cores = bind(_choose_binding(job, runtime), site.host, devices)
        for device in devices:
            spec = _spec(job, device, table.rank_size, runtime, job.threads or threads[device.rank])
            base = limits | clean_environment(site.environment, spec.threads) | shared
            told = base | _identity(device, table, numbers)
            # A slot has cores of its own, but another one's process may start its rank.
            own = cores[device.rank] or (site.host.cpus if site.is_slot else ())
            spec = replace(spec, environment=told, transport=transport, cores=own)
            specs.append(replace(spec, one_host=one_host))
    specs.sort(key=lambda spec: spec.rank)
    hosts = len({site.host.machine for site in sites})
    by_mindspore = given is None and runtime not in ON_THE_HOST and any(s.is_slot for s in sites)
    uses_mpi = transport == "mpi" or by_mindspore
    return Placement(tuple(specs), _headline(job, runtime, table, sites), hosts, uses_mpi)


def _spec(job: Job, device: Device, rank_size: int, runtime: str, threads: int) -> WorkerSpec:
    """Return what a rank is told, but for its environment."""
    return WorkerSpec(
        rank=device.rank,
        rank_size=rank_size,
        device_id=device.device_id,
        server_id=device.server_id,
        device=runtime,
        network=job.network,
        network_args=job.network_args,
        predict_data=job.data,
        task=job.task,
        parallel_mode=job.parallel_mode,
        device_options=device_options(job),
        loss=job.loss,
        metrics=job.metrics,
        batch_size=job.batch_size,
        dataset_sink_mode=job.dataset_sink_mode,
        checkpoint=job.checkpoint,
        strategy=job.strategy,
        key_file=str(job.key_file) if job.key_file else None,
        allow_missing=job.allow_missing,
        search_path=tuple(map(str, job.search_path)),
        threads=threads,
    )


def clean_environment(environment: Mapping[str, str], threads: int) -> dict[str, str]:
    """Return the environment of a child: nothing stale in it, and its share of the cores."""
    kept = {
        name: value
        for name, value in environment.items()
        if not name.startswith(STALE_PREFIXES) and name not in STALE_NAMES
    }
    return dict([LOG_LEVEL]) | kept | dict.fromkeys(THREAD_VARIABLES, str(threads))


def count_ranks(job: Job, given: RankTable | None) -> int:
    """Return how many ranks the job has.

    Raises:
        JobError: the job does not say, or says it twice and differently.
    """
    if given is None:
        if job.ranks is None:
            raise JobError.about("ranks", "missing", "add --ranks N or --rank-table FILE")
        return job.ranks
    if job.ranks not in (None, given.rank_size):
        what = f"{job.ranks}, but the rank table {job.rank_table} names {given.rank_size}"
        raise JobError.about("ranks", what, "leave one of them out")
    return given.rank_size


def _table_of(sites: Sequence[Site]) -> RankTable:
    """Return the table of the ranks of sites, whose devices are numbered host by host."""
    machines = {site.host.machine for site in sites}
    seen: Counter[str] = Counter()
    devices = []
    placed = {rank: site for site in sites for rank in site.ranks}
    for rank, site in sorted(placed.items(), key=lambda item: item[0]):
        name = site.host.name if len(machines) > 1 else SIMULATED_SERVER
        devices.append(Device(rank, seen[site.host.machine], name))
        seen[site.host.machine] += 1
    return RankTable(tuple(devices))


def _choose_runtime(job: Job, table: RankTable, sites: Sequence[Site]) -> str:
    """Return the runtime of every rank, one of the words of ``WorkerSpec.device``."""
    whole = table.rank_size == 1 or job.parallel_mode == "data_parallel"
    without = [site for site in sites if not site.host.ascend_devices]
    if job.device == "cpu" or (job.device == "auto" and len(without) == len(sites)):
        return "cpu" if whole else "simulated"
    if job.device == "auto" and without:
        what = f"{without[0].host.name} has no Ascend device, but other hosts have"
        raise HostError(what, "mend it, or run the job on simulated ranks with --device cpu")
    if whole:
        return "single"
    return "gpu" if job.device == "gpu" else "ascend"


def _choose_binding(job: Job, runtime: str) -> str:
    """Return one of the words of ``bind``; simulated ranks wait for each other less unbound."""
    if job.bind == "auto":
        return "none" if runtime in ON_THE_HOST else "numa"
    return job.bind


def _choose_transport(sites: Sequence[Site]) -> str:
    """Return how simulated ranks reach each other, one of the words of ``WorkerSpec.transport``."""
    if len({site.host.machine for site in sites}) == 1:
        return "memory"
    if not all(site.is_slot for site in sites):
        what = "simulated ranks on several hosts reach each other through MPI only"
        raise HostError(what, "start them with --engine mpi, mpirun or srun --mpi=pmix")
    for site in sites:
        if not any(True for _ in mpi_variables(site.environment)):
            what = "srun has started the ranks without MPI, which they need to reach other hosts"
            raise HostError(what, "use srun --mpi=pmix, or mpirun")
        if not site.host.has_mpi:
            raise HostError(f"mpi4py is not installed on {site.host.name}", MPI_INSTALL)
    return "mpi"


def _share_of_cores(sites: Sequence[Site]) -> dict[int, int]:
    """Return how many cores each rank has if those that may use the same ones share them."""
    sharing: Counter[tuple[str, tuple[int, ...]]] = Counter()
    for site in sites:
        sharing[site.host.machine, site.host.cpus] += len(site.ranks)
    return {
        rank: max(1, site.host.cores // sharing[site.host.machine, site.host.cpus])
        for site in sites
        for rank in site.ranks
    }


def _identity(device: Device, table: RankTable, numbers: Mapping[int, int]) -> dict[str, str]:
    """Return who a rank is; ``numbers`` are those by which processes know their devices."""
    return {
        "RANK_ID": str(device.rank),
        "RANK_SIZE": str(table.rank_size),
        "DEVICE_ID": str(numbers.get(device.device_id, device.device_id)),
    }


def _headline(job: Job, runtime: str, table: RankTable, sites: Sequence[Site]) -> str:
    ranks = plural(table.rank_size, "rank")
    machines = {site.host.machine: site.host for site in sites}
    where = "this host" if len(machines) == 1 else plural(len(machines), "host")
    if runtime not in ON_THE_HOST:
        return f"{ranks} on {kind_of_device(job)} devices of {where}"
    cores = plural(len({(site.host.machine, n) for site in sites for n in site.host.cpus}), "core")
    if runtime == "cpu":
        return f"{ranks} on the CPU of this host ({cores})"
    stands_in = len(machines) == 1 and len(table.servers) > 1
    stand_in = f", standing in for {len(table.servers)} servers" if stands_in else ""
    return f"{ranks}, simulated on {where} ({cores}){stand_in}"
