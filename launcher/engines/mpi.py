"""Start one slot for each rank with mpirun, and lead them from here. Parent only."""

from __future__ import annotations

import os
import shlex
import shutil
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path

from launcher.errors import HostError, JobError
from launcher.job import Job
from launcher.secret import HEAD_VARIABLE

INSTALL = "pip install 'ascend-slice-launcher[mpi]', or load the module of your cluster's Open MPI"
_IS_OPEN_MPI = "Open MPI"


def mpirun_command(job: Job, ranks: int, environment: Mapping[str, str]) -> list[str]:
    """Return the mpirun that starts a number of slots, up to the program that they run.

    Raises:
        HostError: there is no mpirun, or it does not run.
        JobError: there is no such hostfile.
    """
    if job.hostfile is not None and not job.hostfile.is_file():
        raise JobError.about("hostfile", f"there is no file {job.hostfile}")
    mpirun = _find(environment)
    try:
        version = subprocess.run([mpirun, "--version"], capture_output=True, text=True).stdout
    except OSError as error:
        raise HostError(f"{mpirun} does not run: {error.strerror}", INSTALL) from error
    told = (HEAD_VARIABLE, "PYTHONPATH")
    if _IS_OPEN_MPI in version:
        hostfile, variables = "--hostfile", [word for name in told for word in ("-x", name)]
        # Ranks share cores as the job says; mpirun would bind each slot, or refuse too many.
        freedom = ["--map-by", ":OVERSUBSCRIBE", "--bind-to", "none"]
        freedom += ["--allow-run-as-root"] if os.geteuid() == 0 else []
    else:  # MPICH and its relatives
        hostfile, variables, freedom = "-f", ["-genvlist", ",".join(told)], []
    hosts = [hostfile, str(job.hostfile)] if job.hostfile else []
    return [mpirun, "-n", str(ranks), *hosts, *freedom, *variables, *shlex.split(job.engine_args)]


def _find(environment: Mapping[str, str]) -> str:
    """Return the mpirun of the PATH, or the one that was installed beside this Python."""
    beside = Path(sys.executable).with_name("mpirun")
    found = shutil.which("mpirun", path=environment.get("PATH"))
    if found is None and not beside.is_file():
        raise HostError("there is no mpirun on the PATH", INSTALL)
    return found or str(beside)
