"""Which process of mpirun or srun this one is."""

from __future__ import annotations

import pytest

from launcher.errors import HostError
from launcher.slot import Slot, find_slot, mpi_variables

OPEN_MPI = {
    "OMPI_COMM_WORLD_RANK": "3",
    "OMPI_COMM_WORLD_SIZE": "8",
    "PMIX_RANK": "3",
    "PMIX_NAMESPACE": "prterun-host-7@1",
}
SRUN = {
    "SLURM_JOB_ID": "12",
    "SLURM_STEP_ID": "0",
    "SLURM_PROCID": "3",
    "SLURM_STEP_NUM_TASKS": "8",
}
BATCH_SCRIPT = {"SLURM_JOB_ID": "12", "SLURM_PROCID": "0", "SLURM_NTASKS": "8"}


def test_a_process_of_open_mpi_is_a_rank() -> None:
    wanted = Slot(rank=3, size=8, source="Open MPI", job="prterun-host-7@1")
    assert find_slot(OPEN_MPI) == wanted


@pytest.mark.parametrize(
    ("environment", "source"),
    [
        ({"MV2_COMM_WORLD_RANK": "3", "MV2_COMM_WORLD_SIZE": "8"}, "MVAPICH"),
        ({"PMI_RANK": "3", "PMI_SIZE": "8"}, "PMI"),
        (SRUN | {"PMIX_RANK": "3"}, "PMIx"),
    ],
)
def test_other_mpis_are_known_too(environment: dict[str, str], source: str) -> None:
    slot = find_slot(environment)
    assert slot is not None
    assert (slot.rank, slot.size, slot.source, slot.speaks_mpi) == (3, 8, source, True)


def test_a_task_of_srun_is_a_rank_that_may_not_know_of_mpi() -> None:
    assert find_slot(SRUN) == Slot(rank=3, size=8, source="Slurm", job="12.0", speaks_mpi=False)


@pytest.mark.parametrize("environment", [{}, BATCH_SCRIPT, {"PATH": "/bin", "RANK_ID": "3"}])
def test_a_process_that_was_started_alone_is_none(environment: dict[str, str]) -> None:
    assert find_slot(environment) is None


def test_one_process_alone_is_none_whoever_started_it() -> None:
    assert find_slot({"OMPI_COMM_WORLD_RANK": "0", "OMPI_COMM_WORLD_SIZE": "1"}) is None


def test_an_mpirun_inside_a_slurm_job_is_what_counts() -> None:
    slot = find_slot(SRUN | {"SLURM_PROCID": "0"} | OPEN_MPI)
    assert slot is not None and slot.rank == 3


@pytest.mark.parametrize("variable", ["RANK_ID", "PMIX_RANK", "PMI_RANK"])
def test_two_that_disagree_are_an_error_that_names_both(variable: str) -> None:
    with pytest.raises(HostError) as caught:
        find_slot(OPEN_MPI | {variable: "5"})
    assert f"OMPI_COMM_WORLD_RANK=3 and {variable}=5 disagree" in str(caught.value)
    assert caught.value.exit_code == 2


def test_the_name_of_a_pod_is_no_rank_to_disagree_with() -> None:
    slot = find_slot(OPEN_MPI | {"RANK_ID": "pod-0"})
    assert slot is not None and slot.rank == 3


def test_a_rank_of_nobody_knows_how_many_is_an_error() -> None:
    with pytest.raises(HostError, match="PMIX_RANK=3 says .* but nothing says of how many"):
        find_slot({"PMIX_RANK": "3"})


def test_what_mpi_needs_is_told_from_the_rest() -> None:
    environment = OPEN_MPI | {"PATH": "/bin", "SLURM_PROCID": "3"}
    assert dict(mpi_variables(environment)) == OPEN_MPI
