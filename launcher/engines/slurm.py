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
_CANCEL_S = 30.0


def srun_command(job: Job, ranks: int, environment: Mapping[str, str]) -> list[str]:
    """Return the srun that starts a number of slots, up to the program that they run.

    Raises:
        HostError: there is no srun.
    """
    srun = _find("srun", environment)
    known = subprocess.run([srun, "--mpi=list"], capture_output=True, text=True)
    speaks_pmix = "pmix" in (known.stdout + known.stderr).split()
    mpi = ["--mpi=pmix"] if speaks_pmix else []
    return [srun, f"--ntasks={ranks}", *mpi, *shlex.split(job.engine_args)]


def batch_script(job: Job, ranks: int, arguments: Sequence[str], folder: Path) -> str:
    """Return the batch job that carries out a command line of the launcher in an allocation."""
    command = shlex.join([sys.executable, "-m", "launcher", *arguments])
    options = [
        "--job-name=launcher",
        f"--ntasks={ranks}",
        f"--time={math.ceil(job.timeout / 60) + 1}",
        f"--chdir={Path.cwd()}",
        f"--output={folder / 'slurm-%j.log'}",
        *shlex.split(job.engine_args),
    ]
    lines = ["#!/bin/bash", *(f"#SBATCH {option}" for option in options), f"exec {command}"]
    return "\n".join(lines) + "\n"


def submit(script: str, folder: Path, environment: Mapping[str, str]) -> int:
    """Run a batch job to its end, show what it printed, and return its exit code.

    Raises:
        HostError: there is no sbatch, or it refuses the job.
    """
    sbatch = _find("sbatch", environment)
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "job.sbatch").write_text(script, encoding="utf-8")
    command = [sbatch, "--wait", "--parsable", str(folder / "job.sbatch")]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None  # it is a pipe
        number = process.stdout.readline().strip().partition(";")[0]
        log = folder / f"slurm-{number}.log"
        if number:
            print(f"launcher: submitted as job {number}; {log} tells more", file=sys.stderr)
        try:
            exit_code = process.wait()
        except BaseException:
            scancel = [_find("scancel", environment), number]
            subprocess.run(scancel, timeout=_CANCEL_S, check=False)
            raise
    if not number:
        raise HostError(f"sbatch refused the job (exit code {exit_code})", "see above")
    if log.exists():
        print(log.read_text(encoding="utf-8", errors="replace"), end="")
    return exit_code


def _find(program: str, environment: Mapping[str, str]) -> str:
    found = shutil.which(program, path=environment.get("PATH"))
    if found is None:
        raise HostError(f"there is no {program} on the PATH", _INSTALL)
    return found
