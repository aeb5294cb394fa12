"""Decide which of the processes of mpirun or srun this one is. Pure: reads variables only.

Open MPI, MVAPICH and other MPIs say it in variables of their own, PMIx and PMI in common ones;
what speaks of one rank must agree. Slurm counts only where no MPI does: an mpirun inside a Slurm
job leaves Slurm's variables as they were outside of it.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass

from launcher.errors import HostError

# What mpirun tells each of its processes; a rank that it did not start must not inherit them.
MPI_PREFIXES = ("OMPI_", "PMIX_", "PMI_", "PRTE_", "MV2_COMM_WORLD_", "MPI_LOCAL")
_MPI = {  # variable of the rank -> whose it is, and the variable of the size
    "OMPI_COMM_WORLD_RANK": ("Open MPI", "OMPI_COMM_WORLD_SIZE"),
    "MV2_COMM_WORLD_RANK": ("MVAPICH", "MV2_COMM_WORLD_SIZE"),
    "PMI_RANK": ("PMI", "PMI_SIZE"),
    "PMIX_RANK": ("PMIx", "SLURM_STEP_NUM_TASKS"),  # has no size of its own
}
_SLURM = {"SLURM_PROCID": ("Slurm", "SLURM_STEP_NUM_TASKS")}
_OWN = "RANK_ID"  # MindSpore's and HCCL's name for the rank


@dataclass(frozen=True, kw_only=True)
class Slot:
    """One of several processes that were started together, to be one rank each."""

    rank: int
    size: int
    source: str  # who says so
    job: str = ""  # what the processes have in common, and no other job's; "" where unknown
    speaks_mpi: bool = True


def find_slot(environment: Mapping[str, str]) -> Slot | None:
    """Return this process's slot; None if it was started alone.

    Raises:
        HostError: variables disagree on the rank, or do not say of how many.
    """
    found = _ranks(_MPI, environment) or _ranks(_SLURM, environment)
    if not found:
        return None
    first = next(iter(found))
    source, size_variable = (_MPI | _SLURM)[first]
    size = _number(environment.get(size_variable))
    if size == 1 or (size is None and first in _SLURM):  # None: in the script of a batch job
        return None
    if size is None:
        what = f"{first}={found[first]} says that this is a rank, but nothing says of how many"
        raise HostError(what, f"start with mpirun or srun, or unset {first}")
    own = _number(environment.get(_OWN))
    for variable, rank in [*found.items(), *([(_OWN, own)] if own is not None else [])]:
        if rank != found[first]:
            what = f"{first}={found[first]} and {variable}={rank} disagree on the rank"
            raise HostError(what, f"unset the one that is not of this job: unset {variable}")
    job = environment.get("PMIX_NAMESPACE") or environment.get("PMI_JOBID", "")
    if not job and "SLURM_STEP_ID" in environment:
        job = f"{environment.get('SLURM_JOB_ID')}.{environment['SLURM_STEP_ID']}"
    return Slot(
        rank=found[first], size=size, source=source, job=job, speaks_mpi=first not in _SLURM
    )


def mpi_variables(environment: Mapping[str, str]) -> Iterator[tuple[str, str]]:
    """Yield what MPI needs in a process to know it as its own."""
    return ((k, v) for k, v in environment.items() if k.startswith(MPI_PREFIXES))


def _ranks(variables: Mapping[str, object], environment: Mapping[str, str]) -> dict[str, int]:
    ranks = {name: _number(environment.get(name)) for name in variables}
    return {name: rank for name, rank in ranks.items() if rank is not None}


def _number(text: str | None) -> int | None:
    return int(text) if text is not None and text.isascii() and text.isdecimal() else None
