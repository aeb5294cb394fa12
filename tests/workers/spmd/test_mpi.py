"""Real processes of an MPI job get what the ranks of one host get, to the bit."""

from __future__ import annotations

import importlib.util
import json
import os
import subprocess
import sys
import uuid
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from workers.spmd.mesh import Mesh

HERE = Path(__file__).parent
MPIRUN = Path(sys.executable).with_name("mpirun")
pytestmark = [
    pytest.mark.skipif(not MPIRUN.exists(), reason="needs pip install -e .[mpi]"),
    pytest.mark.timeout(60),
]


def mpirun(function: str) -> tuple[int, dict[int, str]]:
    """Return the exit code of four ranks, and what each of them said."""
    command = [str(MPIRUN), "-n", "4", "--oversubscribe", "--allow-run-as-root"]
    command += [sys.executable, str(HERE / "mpi_ranks.py"), function]
    env = {**os.environ, "PYTHONPATH": str(HERE.parents[2])}
    done = subprocess.run(command, env=env, capture_output=True, text=True, timeout=50)
    lines = [line for line in done.stdout.splitlines() if line.startswith("[")]
    return done.returncode, dict(map(json.loads, lines))


def test_mpi_gives_the_same_bits_as_shared_memory():
    spec = importlib.util.spec_from_file_location("mpi_ranks", HERE / "mpi_ranks.py")
    ranks = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(ranks)
    job = uuid.uuid4().hex
    with ThreadPoolExecutor(4) as pool:
        here = list(pool.map(lambda rank: ranks.digest(Mesh(rank, 4, job)), range(4)))
    assert mpirun("digest") == (0, dict(enumerate(here)))


def test_ranks_of_an_mpi_job_in_different_calls_are_told_so():
    code, said = mpirun("mismatch")
    assert code != 0
    told = " ".join(said.values())
    assert "rank 1 is in AllGather after ReLU" in told or "rank 1 is in AllGather" in told
    assert "AllReduce after MatMul" in told


def test_a_rank_with_less_data_is_named():
    code, said = mpirun("shorter_data")
    assert code != 0
    assert "the end of its data" in " ".join(said.values())


def test_a_rank_that_dies_ends_the_mpi_job():
    code, said = mpirun("death")
    assert code != 0
    assert said == {}
