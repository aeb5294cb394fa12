"""Say what collectives ask of the lines between the ranks; how bytes travel is up to each line."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Protocol

import numpy as np

from workers.spec import WorkerSpec
from workers.spmd.mesh import Mesh

Parts = Mapping[int, tuple[slice, ...]]  # rank -> which part of an array


class Transport(Protocol):
    """One rank's lines to the others. Not for threads."""

    rank: int
    rank_size: int
    piece_bytes: int  # what a rank can give in one call

    @property
    def waiting_for(self) -> tuple[int, str] | None:
        """A rank that this one waits for at this moment, and in which call."""

    def swap(
        self, call: str, group: tuple[int, ...], array: np.ndarray, gives: Parts, takes: Parts
    ) -> list[np.ndarray]:
        """Return the parts that this rank takes, in the order of ``takes``.

        Blocks until all ranks of the group make the same call. The parts may be memory of other
        ranks: they are valid until the next call, and not to be written to.

        Args:
            call: names the collective; ranks that meet must be in the same one.
            array: what this rank has; the other ranks' have the same shape and dtype.
            gives: which part of it each rank takes.
            takes: which part of whose array this rank needs, its own perhaps among them.

        Raises:
            MismatchError: another rank is in another call, or has made its last one.
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
