"""Have mpirun or srun start the slots of a job, and lead them from here. Parent only."""

from __future__ import annotations

import secrets
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager

from launcher.child import with_our_code
from launcher.cluster.address import HeadAddress
from launcher.cluster.head import Head
from launcher.cluster.line import HeadLine
from launcher.cluster.outer import Outer
from launcher.cluster.slots import name_slot, reachable_addresses
from launcher.curve import Keys
from launcher.engines.mpi import mpirun_command
from launcher.engines.slurm import srun_command
from launcher.host import look_around
from launcher.job import Job
from launcher.secret import HEAD_VARIABLE
from launcher.streams import tell

_SLOT_PROGRAM = (sys.executable, "-P", "-m", "launcher.cluster")


@contextmanager
def leading_slots(job: Job, ranks: int, environment: Mapping[str, str]) -> Iterator[Head]:
    """Have mpirun or srun start a slot for each rank, once they are needed."""
    make = mpirun_command if job.engine == "mpi" else srun_command
    command = make(job, ranks, environment)
    secret = secrets.token_hex(32)
    line = HeadLine(Keys.shared(secret), job.port)
    addresses = reachable_addresses(look_around())
    address = HeadAddress(addresses=addresses, port=line.port, secret=secret)
    told = {**with_our_code(environment), HEAD_VARIABLE: address.to_json()}

    def start() -> Outer:
        return Outer([*command, *_SLOT_PROGRAM], told)

    expected = {name_slot(rank): (rank,) for rank in range(ranks)}
    with Head(line, expected, None, tell, start) as head:
        yield head
