"""Start one slot for each rank with srun, or write and submit the batch job that does so."""

from __future__ import annotations

import math
import shlex
import shutil
import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path

from launcher.errors import HostError
from launcher.job import Job

ALLOCATION = "SLURM_JOB_ID"  # set inside of one
_INSTALL = "run this on a machine where Slurm's commands are, or name another --engine"


def srun_command(job: Job, ranks: int, environment: Mapping[str, str]) -> list[str]:
    """Return the srun that starts a number of slots, up to the program that they run.

    Raises:
        HostError: there is no srun.
    """
    srun = _find("srun", environment)
    return [srun, f"--ntasks={ranks}", *shlex.split(job.engine_args)]


def batch_script(job: Job, ranks: int, arguments: Sequence[str], output: Path) -> str:
    """Return the batch job that carries out a command line of the launcher in an allocation."""
    options = [
        "--job-name=launcher",
        f"--ntasks={ranks}",
        f"--time={math.ceil(job.timeout / 60) + 1}",
        f"--chdir={Path.cwd()}",
        f"--output={output}",
        *shlex.split(job.engine_args),
    ]
    command = shlex.join([sys.executable, "-m", "launcher", *arguments])
    lines = ["#!/bin/bash", *(f"#SBATCH {option}" for option in options), f"exec {command}"]
    return "\n".join(lines) + "\n"


def submit(script: str, environment: Mapping[str, str]) -> int:
    """Submit a batch job, wait for its end and return its exit code.

    Raises:
        HostError: there is no sbatch, or it refuses the job.
    """
    command = [_find("sbatch", environment), "--wait", "--parsable"]
    with subprocess.Popen(
        command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as sbatch:
        assert sbatch.stdin is not None and sbatch.stdout is not None  # they are pipes
        sbatch.stdin.write(script)
        sbatch.stdin.close()
        number = sbatch.stdout.readline().strip().partition(";")[0]
        if number:
            print(f"launcher: batch job {number} is submitted", file=sys.stderr)
        try:
            exit_code = sbatch.wait()
        except KeyboardInterrupt:
            subprocess.run([_find("scancel", environment), number], check=False)
            raise
    if not number:
        raise HostError(f"sbatch left with exit code {exit_code}", "it says why above")
    return exit_code


def _find(program: str, environment: Mapping[str, str]) -> str:
    found = shutil.which(program, path=environment.get("PATH"))
    if found is None:
        raise HostError(f"there is no {program} on the PATH", _INSTALL)
    return found
