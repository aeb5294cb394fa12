"""Ranks in the slots of a real mpirun: started inside of it, and by the launcher itself."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import psutil
import pytest

from launcher.run_folder import RunFolder

HERE = Path(__file__).parent
ROOT = HERE.parents[1]
MPIRUN = Path(sys.executable).with_name("mpirun")
INSIDE = [str(MPIRUN), "--allow-run-as-root", "--map-by", ":OVERSUBSCRIBE", "-n", "3"]

Living = Callable[[], list[psutil.Process]]
Until = Callable[[Callable[[], object]], None]
Start = Callable[..., subprocess.Popen[str]]
Guide = Callable[..., "subprocess.CompletedProcess[str]"]

pytestmark = pytest.mark.skipif(not MPIRUN.is_file(), reason="needs Open MPI: pip install .[mpi]")


@pytest.fixture
def start(folder: RunFolder, mark: str, living: Living, tmp_path: Path) -> Start:
    """Return a function that starts a job of three ranks; see cluster.py."""

    def start(behaviour: str, *command: str, job: Any = None) -> subprocess.Popen[str]:
        asked = {"behaviour": behaviour, "ranks": 3, "folder": str(folder.root), "job": job}
        return subprocess.Popen(
            [*command, sys.executable, str(HERE / "cluster.py"), json.dumps(asked)],
            env={
                "PATH": os.environ["PATH"],
                "HOME": str(tmp_path),
                "TMPDIR": str(tmp_path),  # an mpirun that is killed leaves files there
                "PYTHONPATH": str(ROOT),
                "TEST_MARK": mark,
            },
            cwd=tmp_path,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )

    return start


def test_every_slot_of_mpirun_is_a_rank(
    start: Start, folder: RunFolder, living: Living
) -> None:
    mpirun = start("ShowsItsSlot", *INSIDE)
    said, _ = mpirun.communicate()
    assert mpirun.returncode == 0, said
    assert np.load(folder.predictions()).all()
    assert living() == []


def test_mpirun_returns_the_exit_code_of_the_rank_that_failed(
    start: Start, living: Living
) -> None:
    mpirun = start("Segfaults", *INSIDE)
    said, _ = mpirun.communicate()
    assert mpirun.returncode == 139, said
    assert "cause SIGSEGV of rank 1" in said
    assert living() == []


def test_a_slot_that_is_killed_ends_the_job(
    start: Start, folder: RunFolder, living: Living, until: Until, tmp_path: Path
) -> None:
    mpirun = start("AllWait", *INSIDE)
    until((folder.logs / "waiting").exists)
    assert list(tmp_path.glob(".launcher*")) == []  # where the slots have met
    slots = [p for p in living() if p.environ().get("OMPI_COMM_WORLD_RANK") == "2"]
    min(slots, key=lambda process: process.create_time()).kill()
    mpirun.communicate()
    assert mpirun.returncode != 0
    until(lambda: living() == [])


def test_ranks_in_slots_reach_each_other_through_mpi(start: Start, folder: RunFolder) -> None:
    mpirun = start("MeetsThroughMpi", *INSIDE)
    said, _ = mpirun.communicate()
    assert mpirun.returncode == 0, said
    predicted = np.load(folder.predictions())  # three batches of two rows: 0, 1 and 2
    np.testing.assert_array_equal(predicted[:, 0], [3, 3, 6, 6, 9, 9])


def test_a_rank_killed_among_ranks_that_wait_in_mpi_is_the_cause(
    start: Start, living: Living
) -> None:
    mpirun = start("DiesAmongMpi", *INSIDE)
    said, _ = mpirun.communicate()
    assert mpirun.returncode == 137, said
    assert "cause SIGKILL of rank 1" in said
    assert living() == []


def test_a_launcher_that_calls_mpirun_itself_has_the_exit_code_of_the_rank_that_failed(
    start: Start, living: Living
) -> None:
    launcher = start("Segfaults", job={"engine": "mpi", "ranks": 3})
    said, _ = launcher.communicate()
    assert launcher.returncode == 139, said
    assert living() == []


def test_what_mpirun_complains_of_is_shown(start: Start, living: Living) -> None:
    launcher = start("Healthy", job={"engine": "mpi", "ranks": 3, "engine_args": "--no-such"})
    said, _ = launcher.communicate()
    assert launcher.returncode != 0
    assert "refused: mpirun left with exit code" in said and "no-such" in said
    assert living() == []


@pytest.mark.parametrize("job", [None, {"engine": "mpi", "ranks": 3}], ids=["mpirun", "launcher"])
def test_nobody_outlives_what_was_started_and_is_killed(
    start: Start, folder: RunFolder, living: Living, until: Until, job: Any
) -> None:
    started = start("AllWait", *(INSIDE if job is None else ()), job=job)
    until((folder.logs / "waiting").exists)
    started.kill()
    started.communicate()
    until(lambda: living() == [])


def test_nobody_outlives_a_launcher_whose_mpirun_is_killed(
    start: Start, folder: RunFolder, living: Living, until: Until
) -> None:
    launcher = start("AllWait", job={"engine": "mpi", "ranks": 3})
    until((folder.logs / "waiting").exists)
    (mpirun,) = psutil.Process(launcher.pid).children()
    mpirun.kill()
    said, _ = launcher.communicate()
    assert launcher.returncode == 137, said
    assert "cause EngineLost of rank None: mpirun left with exit code 137" in said, said
    until(lambda: living() == [])


@pytest.mark.parametrize("words", ["mpirun", "python -m launcher job.yaml --engine mpi"])
def test_the_commands_of_the_guide_predict(
    documented: Callable[[str], str], guide: Guide, living: Living, words: str
) -> None:
    done = guide(documented(words))
    assert done.returncode == 0, done.stdout + done.stderr
    assert "accuracy     99.17% of 360 predictions" in done.stdout
    assert "3 batches by 4 ranks" in done.stdout
    assert living() == []


def test_ranks_that_share_no_memory_reach_each_other_through_mpi(
    guide: Guide, living: Living
) -> None:
    container = "unshare --pid --fork --mount-proc"
    if guide(f"{container} true").returncode:
        pytest.skip("containers of our own need root")
    over_tcp = "--mca btl tcp,self --mca pml ob1"  # Open MPI's shared memory takes pids for unique
    done = guide(f"mpirun -n 2 {over_tcp} {container} python -m launcher job.yaml")
    assert done.returncode == 0, done.stdout + done.stderr
    assert "2 ranks, simulated on 2 hosts" in done.stdout
    assert "accuracy     99.17% of 360 predictions" in done.stdout
    assert living() == []


def test_what_is_wrong_with_the_job_is_said_once(
    documented: Callable[[str], str], guide: Guide, living: Living
) -> None:
    done = guide(documented("mpirun") + " --strategy nowhere")
    assert done.returncode == 2
    assert (done.stdout + done.stderr).count("launcher: ") == 1
    assert living() == []


def test_a_dry_run_in_slots_plans_as_many_ranks_and_starts_none(
    documented: Callable[[str], str], guide: Guide, living: Living
) -> None:
    done = guide(documented("mpirun") + " --dry-run")
    assert done.returncode == 0, done.stdout + done.stderr
    assert "4 ranks, simulated" in done.stdout
    assert "ranks started" not in done.stdout
    assert living() == []
