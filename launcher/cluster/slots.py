"""Be the process of a slot: rank 0 leads the job, the others lend their slots to it.

The processes that mpirun or srun has started meet through a file in the folder where they all
started. Only rank 0 looks at the job, so that what is wrong with it is said once.
"""

from __future__ import annotations

import os
import re
import secrets
import signal
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path

from launcher.cluster.address import HeadAddress, find_head, read_file, write_file
from launcher.cluster.head import Head
from launcher.cluster.line import HeadLine
from launcher.cluster.member import serve
from launcher.curve import Keys
from launcher.errors import HostError
from launcher.host import Host, look_around
from launcher.secret import HEAD_VARIABLE
from launcher.site import Site
from launcher.slot import Slot
from launcher.streams import tell
from workers.lifeline import die_with

MEETING_S = 120.0  # for rank 0 to have its file written, once the slots have started


@contextmanager
def leading(slot: Slot) -> Iterator[Head]:
    """Gather the other slots of rank 0's job, and let them go in the end.

    Raises:
        HostError: the folder that the slots share cannot be written to.
    """
    _end_with_starter()
    host, secret = look_around(), secrets.token_hex(32)
    own = Site(ranks=(0,), host=host, environment=dict(os.environ), is_slot=True)
    line = HeadLine(Keys.shared(secret))
    address = HeadAddress(addresses=reachable_addresses(host), port=line.port, secret=secret)
    file = _meeting_file(slot)
    try:
        write_file(file, address)
    except OSError as error:
        line.close()
        fix = "start in a folder that all slots share"
        raise HostError(f"{file}: {error.strerror}", fix) from error
    expected = {name_slot(rank): (rank,) for rank in range(1, slot.size)}
    forget = partial(file.unlink, missing_ok=True)
    with Head(line, expected, own, tell, all_have_come=forget) as head:
        yield head


def lend(slot: Slot) -> int:
    """Lend a slot to the job until it has ended; return the exit code of this process."""
    _end_with_starter()
    look, where = _where_to_look(slot)
    head, address = find_head(look, where, MEETING_S, tell)
    site = Site(
        ranks=(slot.rank,), host=look_around(), environment=dict(os.environ), is_slot=True
    )
    # All slots leave with the exit code of the job: an mpirun that has lost a rank in the middle of
    # MPI passes on the code of that one's slot.
    return serve(head, address, name_slot(slot.rank), site, {}).exit_code


def _end_with_starter() -> None:
    """Be told to end when mpirun or srun is killed: nobody would read what this process says."""
    die_with(os.getppid(), signal.SIGTERM)


def _where_to_look(slot: Slot) -> tuple[Callable[[], HeadAddress | None], str]:
    if (told := os.environ.get(HEAD_VARIABLE)) is not None:
        head = HeadAddress.from_json(told)
        return lambda: head, f"{', '.join(head.addresses)}, port {head.port}"
    file = _meeting_file(slot)
    return lambda: read_file(file), f"{file}; do all hosts share that folder?"


def _meeting_file(slot: Slot) -> Path:
    return Path.cwd() / f".launcher-{re.sub('[^A-Za-z0-9.]+', '-', slot.job) or 'slots'}"


def reachable_addresses(host: Host) -> tuple[str, ...]:
    """Return where other hosts may reach this one; loopback last, for hosts without a network."""
    loopback = {"127.0.0.1", "::1"}
    named = [a for a in host.addresses if a not in loopback and not a.startswith("fe80:")]
    return (*named, "127.0.0.1")


def name_slot(rank: int) -> str:
    return f"the slot of rank {rank}"
