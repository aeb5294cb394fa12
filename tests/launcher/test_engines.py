"""The commands that bring slots to life, and what is said where they cannot."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

import launcher
from launcher.engines.mpi import mpirun_command
from launcher.engines.slurm import batch_script, srun_command
from launcher.errors import HostError, JobError
from launcher.job import Job

MakeJob = Callable[..., Job]
TABLE = Path(__file__).parents[2] / "rank_tables" / "hccl_2x8.json"


@pytest.fixture
def program(tmp_path: Path) -> Callable[[str, str], dict[str, str]]:
    """Return a function that makes a program; returned is the environment that finds it."""

    def make(name: str, output: str) -> dict[str, str]:
        path = tmp_path / name
        path.write_text(f"#!/bin/sh\necho '{output}'\n")
        path.chmod(0o755)
        return {"PATH": str(tmp_path)}

    return make


@pytest.fixture
def hosts(tmp_path: Path) -> str:
    path = tmp_path / "hosts"
    path.write_text("localhost slots=8\n")
    return str(path)


def test_open_mpi_is_told_what_a_user_would_have_to(
    make_job: MakeJob, program: Callable[[str, str], dict[str, str]], tmp_path: Path, hosts: str
) -> None:
    environment = program("mpirun", "mpirun (Open MPI) 5.0.5")
    job = make_job(hostfile=hosts, engine_args="--timeout 9")
    command = mpirun_command(job, 8, environment)
    assert command[:5] == [str(tmp_path / "mpirun"), "-n", "8", "--hostfile", hosts]
    assert command[-2:] == ["--timeout", "9"]
    assert ":OVERSUBSCRIBE" in command
    assert ("--allow-run-as-root" in command) == (os.geteuid() == 0)
    assert ["-x", "LAUNCHER_HEAD"] == command[command.index("-x") :][:2]  # no value: it is a key


def test_mpich_is_told_in_its_own_words(
    make_job: MakeJob, program: Callable[[str, str], dict[str, str]], tmp_path: Path, hosts: str
) -> None:
    environment = program("mpirun", "HYDRA build details: Version: 4.1.2")
    command = mpirun_command(make_job(hostfile=hosts), 8, environment)
    told = ["-f", hosts, "-genvlist", "LAUNCHER_HEAD,PYTHONPATH"]
    assert command == [str(tmp_path / "mpirun"), "-n", "8", *told]


def test_a_hostfile_that_is_not_there_is_refused_before_mpirun_runs(make_job: MakeJob) -> None:
    with pytest.raises(JobError, match="hostfile: there is no file /nowhere"):
        mpirun_command(make_job(hostfile="/nowhere"), 8, {})


def test_where_there_is_no_mpirun_the_fix_is_named(
    make_job: MakeJob, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(sys, "executable", str(tmp_path / "python"))
    with pytest.raises(HostError, match=r"no mpirun on the PATH; pip install '.*\[mpi\]'") as error:
        mpirun_command(make_job(), 8, {"PATH": str(tmp_path)})
    assert error.value.exit_code == 2


def test_the_mpirun_beside_this_python_will_do(
    make_job: MakeJob,
    program: Callable[[str, str], dict[str, str]],
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
) -> None:
    program("mpirun", "Open MPI")
    monkeypatch.setattr(sys, "executable", str(tmp_path / "python"))
    assert mpirun_command(make_job(), 8, {"PATH": "/nowhere"})[0] == str(tmp_path / "mpirun")


def test_where_there_is_no_slurm_another_engine_is_named(make_job: MakeJob) -> None:
    with pytest.raises(HostError, match="no srun on the PATH; .* name another --engine"):
        srun_command(make_job(), 8, {"PATH": "/nowhere"})


def test_a_batch_job_has_the_time_of_the_run_and_quotes_what_needs_it(make_job: MakeJob) -> None:
    job = make_job(timeout=90.0, engine_args="--partition=npu --nodes=2")
    arguments = ["job.yaml", "--checkpoint", "rank_{rank}/*.ckpt"]
    lines = batch_script(job, 8, arguments, Path("/out/slurm.log")).splitlines()
    wanted = {"--ntasks=8", "--time=3", "--output=/out/slurm.log", "--partition=npu", "--nodes=2"}
    assert wanted <= {line.removeprefix("#SBATCH ") for line in lines}
    assert lines[-1].endswith("-m launcher job.yaml --checkpoint 'rank_{rank}/*.ckpt'")


def test_a_batch_script_keeps_blanks_and_percent_signs_together(make_job: MakeJob) -> None:
    job = make_job(engine_args="--comment='two words'")
    lines = batch_script(job, 8, [], Path("/my out/100%j/slurm.log")).splitlines()
    assert "#SBATCH '--output=/my out/100%%j/slurm.log'" in lines
    assert "#SBATCH '--comment=two words'" in lines


def test_a_python_program_in_a_slot_is_told_to_use_the_command(
    make_job: MakeJob, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("OMPI_COMM_WORLD_RANK", "1")
    monkeypatch.setenv("OMPI_COMM_WORLD_SIZE", "2")
    with pytest.raises(HostError, match="rank 1 of Open MPI.*start python -m launcher"):
        launcher.run(make_job())


def test_hosts_without_a_rank_table_are_an_error(make_job: MakeJob) -> None:
    with pytest.raises(JobError, match="engine: hosts, but no rank table names several"):
        launcher.run(make_job(engine="hosts"))


def test_a_python_program_leads_on_the_host_of_rank_0_only(
    make_job: MakeJob, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("LAUNCHER_CLUSTER_KEY", "x" * 32)
    job = make_job(engine="hosts", rank_table=TABLE, ranks=None, node="1")
    with pytest.raises(HostError, match="leads the job; start python -m launcher here"):
        launcher.run(job)
