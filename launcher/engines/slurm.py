"""Start one slot for each rank with srun, or write and submit the batch job that does so."""

from __future__ import annotations

import math
import os
import select
import shlex
import shutil
import subprocess
import sys
from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import IO, Any

from launcher.errors import HostError, LauncherError
from launcher.interrupts import Interrupts
from launcher.job import Job
from launcher.text import signal_name
from workers.lifeline import die_with

ALLOCATION = "SLURM_JOB_ID"  # set inside of one
_INSTALL = "run this on a machine where Slurm's commands are, or name another --engine"


class CancelledError(LauncherError):
    """The launcher was told to end while it waited for its batch job."""

    def __init__(self, signal: int, number: str) -> None:
        super().__init__(signal, number)
        self.signal, self.number, self.exit_code = signal, number, 128 + signal

    def __str__(self) -> str:
        fate = f"batch job {self.number} is cancelled" if self.number else "nothing is submitted"
        return f"told to end by {signal_name(self.signal)}; {fate}"


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
        f"--output={str(output).replace('%', '%%')}",  # %j would be the number of the job
        *shlex.split(job.engine_args),
    ]
    command = shlex.join([sys.executable, "-m", "launcher", *arguments])
    directives = [f"#SBATCH {shlex.quote(option)}" for option in options]
    return "\n".join(["#!/bin/bash", *directives, f"exec {command}"]) + "\n"


def submit(script: str, environment: Mapping[str, str]) -> int:
    """Submit a batch job, wait for its end and return its exit code.

    Raises:
        HostError: there is no sbatch, or it refuses the job.
        CancelledError: this process was told to end, and the batch job with it.
    """
    command = [_find("sbatch", environment), "--wait", "--parsable"]
    with Interrupts() as interrupts, subprocess.Popen(
        command,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        start_new_session=True,  # Ctrl-C is for the launcher
        preexec_fn=partial(die_with, os.getpid()),
    ) as sbatch:
        assert sbatch.stdin is not None and sbatch.stdout is not None  # they are pipes
        sbatch.stdin.write(script)
        sbatch.stdin.close()
        number = ""
        told = _told_before(sbatch.stdout, interrupts)
        if told is None and (number := sbatch.stdout.readline().strip().partition(";")[0]):
            print(f"launcher: batch job {number} is submitted", file=sys.stderr)
            with open(os.pidfd_open(sbatch.pid), "rb") as end:
                told = _told_before(end, interrupts)
        if told is not None:
            if number:
                subprocess.run([_find("scancel", environment), number], check=False)
            sbatch.terminate()
            raise CancelledError(told, number)
        exit_code = sbatch.wait()
    if not number:
        raise HostError(f"sbatch left with exit code {exit_code}", "it says why above")
    return exit_code


def _told_before(source: IO[Any], interrupts: Interrupts) -> int | None:
    """Wait for a source to have something; return the signal that came before, if one did."""
    sources: list[IO[Any] | Interrupts] = [source, interrupts]
    while True:
        ready, _, _ = select.select(sources, [], [])
        for number in interrupts.receive():
            return number
        if source in ready:
            return None


def _find(program: str, environment: Mapping[str, str]) -> str:
    found = shutil.which(program, path=environment.get("PATH"))
    if found is None:
        raise HostError(f"there is no {program} on the PATH", _INSTALL)
    return found
