"""Ranks in the tasks of a real srun: started inside of it, by the launcher, and by sbatch.

The tests run a Slurm cluster of their own, in a folder, which takes root and Debian's packages.
"""

from __future__ import annotations

import json
import os
import secrets
import shutil
import signal
import socket
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import psutil
import pytest

from launcher.run_folder import RunFolder

HERE = Path(__file__).parent
ROOT = HERE.parents[1]
PROGRAMS = ("munged", "slurmctld", "slurmd", "srun", "sbatch", "sinfo")
SBIN = "/usr/sbin:/sbin"  # not on every PATH

_CONFIGURATION = """\
ClusterName=test
SlurmctldHost={host}(127.0.0.1)
SlurmctldPort={controller_port}
SlurmdPort={node_port}
AuthInfo=socket={folder}/munge.socket
SlurmUser=root
SlurmdUser=root
StateSaveLocation={folder}/state
SlurmdSpoolDir={folder}/spool
SlurmctldPidFile={folder}/slurmctld.pid
SlurmdPidFile={folder}/slurmd.pid
SlurmctldLogFile={folder}/slurmctld.log
SlurmdLogFile={folder}/slurmd.log
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
JobAcctGatherType=jobacct_gather/none
SelectType=select/cons_tres
SelectTypeParameters=CR_CPU
SlurmdParameters=config_overrides
SchedulerParameters=sched_interval=1,batch_sched_delay=0
NodeName={host} NodeAddr=127.0.0.1 CPUs=8 State=UNKNOWN
PartitionName=main Nodes={host} Default=YES State=UP
"""


Living = Callable[[], list[psutil.Process]]
Until = Callable[[Callable[[], object]], None]
Guide = Callable[..., "subprocess.CompletedProcess[str]"]


def missing() -> str:
    """Return why there can be no cluster here; "" if there can."""
    absent = [name for name in PROGRAMS if shutil.which(name, path=_path()) is None]
    if absent:
        return f"needs {', '.join(absent)}: apt-get install slurmctld slurmd munge"
    return "" if os.geteuid() == 0 else "slurmctld and slurmd need root"


@contextmanager
def cluster(folder: Path, until: Until) -> Iterator[dict[str, str]]:
    """Run a cluster of one node with eight CPUs, and yield the environment to use it."""
    ports = dict(zip(("controller_port", "node_port"), _free_ports(2)))
    configuration = folder / "slurm.conf"
    configuration.write_text(
        _CONFIGURATION.format(host=socket.gethostname(), folder=folder, **ports)
    )
    (folder / "cgroup.conf").write_text("CgroupPlugin=cgroup/v1\n")
    for name in ("state", "spool"):
        (folder / name).mkdir()
    key = folder / "munge.key"
    key.write_bytes(secrets.token_bytes(1024))
    key.chmod(0o600)
    environment = {"PATH": _path(), "SLURM_CONF": str(configuration)}
    munged = ["munged", "--foreground", "--force", f"--key-file={key}"]
    munged += [f"--{name}-file={folder}/munge.{name}" for name in ("pid", "log", "seed")]
    with ExitStack() as stack:
        stack.enter_context(_running([*munged, f"--socket={folder}/munge.socket"], environment))
        until((folder / "munge.socket").exists)
        for daemon in ("slurmctld", "slurmd"):
            command = [daemon, "-D", "-c", "-f", str(configuration)]
            stack.enter_context(_running(command, environment))
        until(lambda: "idle" in _output(["sinfo", "-h", "-o", "%t"], environment))
        yield environment


@contextmanager
def _running(command: list[str], environment: dict[str, str]) -> Iterator[None]:
    silent = subprocess.DEVNULL
    with subprocess.Popen(command, env=environment, stdout=silent, stderr=silent) as daemon:
        try:
            yield
        finally:
            daemon.terminate()


def _output(command: list[str], environment: dict[str, str]) -> str:
    return subprocess.run(command, env=environment, capture_output=True, text=True).stdout


def _path() -> str:
    return f"{os.environ['PATH']}:{SBIN}"


def _free_ports(count: int) -> list[int]:
    with ExitStack() as stack:
        sockets = [stack.enter_context(socket.create_server(("", 0))) for _ in range(count)]
        return [number.getsockname()[1] for number in sockets]


pytestmark = pytest.mark.skipif(bool(missing()), reason=missing())


@pytest.fixture
def environment(
    tmp_path: Path, until: Until, mark: str, living: Living
) -> Iterator[dict[str, str]]:
    """Return the environment of commands that use the cluster."""
    (tmp_path / "slurm").mkdir()
    with cluster(tmp_path / "slurm", until) as found:
        yield found | {"HOME": str(tmp_path), "PYTHONPATH": str(ROOT), "TEST_MARK": mark}


def run(
    command: list[str], environment: dict[str, str], folder: Path
) -> subprocess.CompletedProcess[str]:
    return subprocess.run(command, env=environment, cwd=folder, capture_output=True, text=True)


def ranks(behaviour: str, folder: RunFolder, job: Any = None) -> list[str]:
    """Return the command of a job of three ranks; see cluster.py."""
    asked = {"behaviour": behaviour, "ranks": 3, "folder": str(folder.root), "job": job}
    return [sys.executable, str(HERE / "cluster.py"), json.dumps(asked)]


def test_every_task_of_srun_is_a_rank_and_srun_returns_the_exit_code(
    environment: dict[str, str], folder: RunFolder, living: Living, tmp_path: Path
) -> None:
    srun = ["srun", "--ntasks=3"]
    healthy = run([*srun, *ranks("Healthy", folder)], environment, tmp_path)
    assert healthy.returncode == 0, healthy.stdout + healthy.stderr
    assert np.load(folder.predictions()).shape == (6, 3)
    failing = run([*srun, *ranks("Segfaults", folder)], environment, tmp_path)
    assert failing.returncode == 139, failing.stdout + failing.stderr
    assert "cause SIGSEGV of rank 1" in failing.stdout
    assert living() == []
    assert list(tmp_path.glob(".launcher*")) == []

    # In an allocation the launcher calls srun by itself.
    job = {"engine": "slurm", "ranks": 3}
    salloc = ["salloc", "--ntasks=3", *ranks("Segfaults", folder, job)]
    allocated = run(salloc, environment, tmp_path)
    assert allocated.returncode == 139, allocated.stdout + allocated.stderr
    assert "cause SIGSEGV of rank 1" in allocated.stdout
    assert living() == []


def test_the_srun_of_the_guide_predicts(
    environment: dict[str, str], documented: Callable[[str], str], guide: Guide
) -> None:
    done = guide(documented("srun"), SLURM_CONF=environment["SLURM_CONF"])
    assert done.returncode == 0, done.stdout + done.stderr
    assert "3 batches by 4 ranks" in done.stdout


def test_the_batch_job_of_the_guide_predicts(
    environment: dict[str, str], documented: Callable[[str], str], guide: Guide, tmp_path: Path
) -> None:
    slurm = {"SLURM_CONF": environment["SLURM_CONF"]}
    command = documented("python -m launcher job.yaml --engine slurm --ranks 4 --dry-run")
    lines = guide(command, **slurm).stdout.splitlines()
    assert lines[0] == "#!/bin/bash"
    assert "#SBATCH --ntasks=4" in lines
    assert f" --output {tmp_path}/job/runs/" in lines[-1]
    assert not (tmp_path / "job" / "runs").exists()

    done = guide(command.removesuffix(" --dry-run"), **slurm)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "launcher: batch job 1 is submitted" in done.stderr
    assert "3 batches by 4 ranks" in done.stdout


def test_what_is_wrong_with_the_job_is_said_once_and_is_the_exit_code(
    environment: dict[str, str], tmp_path: Path
) -> None:
    command = [sys.executable, "-m", "launcher", "--engine=slurm", "--ranks=2", "--output=out"]
    # In slots the others are let go, too: srun does not end them by itself.
    launcher = [*command[:3], "--strategy=nowhere"]
    refused = run(["srun", "--ntasks=3", *launcher], environment, tmp_path)
    assert refused.returncode == 2, refused.stderr
    assert refused.stderr.count("launcher: ") == 1
    assert list(tmp_path.glob(".launcher*")) == []

    wrong = run([*command, "--strategy=nowhere"], environment, tmp_path)
    assert wrong.returncode == 2
    assert "launcher: batch job 2 is submitted" in wrong.stderr
    assert "nowhere" in wrong.stdout


def test_a_launcher_that_is_told_to_end_cancels_its_batch_job(
    environment: dict[str, str], tmp_path: Path, living: Living, until: Until
) -> None:
    (tmp_path / "net.py").write_text(
        "import pathlib, threading\n"
        "def make():\n"
        "    pathlib.Path(__file__).with_name('waiting').touch()\n"
        "    threading.Event().wait()\n"
    )
    command = [sys.executable, "-m", "launcher", "--engine=slurm", "--ranks=2", "--output=out"]
    command += ["--network=net.py:make", "--predict-data=net.py:make"]
    with subprocess.Popen(
        command, env=environment, cwd=tmp_path, stderr=subprocess.PIPE, text=True
    ) as launcher:
        until((tmp_path / "waiting").exists)
        launcher.send_signal(signal.SIGTERM)
        _, said = launcher.communicate()
    assert launcher.returncode == 143
    assert "told to end by SIGTERM; batch job 1 is cancelled" in said
    until(lambda: living() == [])


def test_a_refusal_of_slurm_is_passed_on(environment: dict[str, str], tmp_path: Path) -> None:
    command = [sys.executable, "-m", "launcher", "--engine=slurm", "--ranks=2", "--output=out"]
    refused = run([*command, "--engine-args=--partition=none"], environment, tmp_path)
    assert refused.returncode == 2
    assert "invalid partition specified" in refused.stderr
