"""Read weights that every rank of a host holds whole once, into memory that all of them see."""

from __future__ import annotations

import mmap
import os
from collections.abc import Callable

import numpy as np

from workers.resharding.execute import allocate, block_bytes
from workers.resharding.plan import LoadPlan
from workers.spec import WorkerSpec
from workers.spmd.meeting import Meeting

READER = 0  # the rank that reads


def read_once(
    spec: WorkerSpec, plan: LoadPlan, read: Callable[[np.ndarray], dict[str, np.ndarray]]
) -> tuple[dict[str, np.ndarray], int]:
    """Return the planned arrays, and how many bytes of files this rank has read for them.

    What a rank writes to its arrays is its own: the others do not see it.

    Args:
        read: reads the arrays into a block of memory. Only one rank calls it; the others wait.
    """
    size = max(1, block_bytes(plan.slices))
    descriptor = -1
    if spec.rank == READER:
        descriptor = os.memfd_create("weights", os.MFD_CLOEXEC)
        os.ftruncate(descriptor, size)
        read(np.frombuffer(mmap.mmap(descriptor, size), np.uint8))
    meeting = Meeting(spec.rank, spec.rank_size, spec.job_id, descriptor)
    for line in meeting.lines.values():
        line.close()
    own = mmap.mmap(meeting.board, size, mmap.MAP_PRIVATE, mmap.PROT_READ | mmap.PROT_WRITE)
    os.close(meeting.board)
    arrays = allocate(plan.slices, np.frombuffer(own, np.uint8))
    return arrays, plan.bytes_to_read if spec.rank == READER else 0
