"""Say what collectives ask of the lines between the ranks; how bytes travel is up to each line."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Protocol

import numpy as np

from workers.spec import WorkerSpec
from workers.spmd.mesh import Mesh

Parts = Mapping[int, tuple[slice, ...]]  # rank -> which part of an array


class Transport(Protocol):
    """One rank's lines to the others. Not for threads."""

    rank: int
    rank_size: int
    waiting_for: tuple[int, str] | None  # rank and call, while this rank is blocked

    def swap(
        self, call: str, array: np.ndarray, gives: Parts, takes: Parts
    ) -> Iterator[np.ndarray]:
        """Yield the parts that this rank takes, in the order of ``takes``; exhaust it.

        Blocks until those it takes from make the same call. What it yields may be the memory of
        another rank: copy it before going on.

        Args:
            call: names the collective; ranks that meet must be in the same one.
            array: what this rank has; the other ranks' have the same shape and dtype.
            gives: which part of it each rank takes.
            takes: which part of whose array this rank needs, its own perhaps among them.

        Raises:
            MismatchError: another rank is in another call.
            PeerLostError: another rank is gone.
        """

    def close(self) -> None:
        """Part from the other ranks after the last call. A rank that fails just ends."""


def connect(spec: WorkerSpec) -> Transport:
    """Meet the other ranks, as the spec says. Blocks until all of them have come."""
    if spec.transport == "mpi":
        from workers.spmd.mpi import MpiTransport  # importing it starts MPI

        return MpiTransport(spec.rank, spec.rank_size)
    return Mesh(spec.rank, spec.rank_size, spec.job_id)
