"""Name what can go wrong on a rank, and the exit code that each kind of failure ends in."""

from __future__ import annotations


class WorkerError(Exception):
    """A rank cannot go on. ``exit_code`` is what its process ends with."""

    exit_code = 1


class InputError(WorkerError):
    """Something that the user gave (network, data, strategy, checkpoint) cannot be used."""

    exit_code = 2


class PeerLostError(WorkerError):
    """Another rank vanished while this one waited for it: an echo of that rank's failure."""

    def __init__(self, rank: int, peer: int, doing: str) -> None:
        super().__init__(rank, peer, doing)
        self.rank, self.peer, self.doing = rank, peer, doing

    def __str__(self) -> str:
        return f"rank {self.peer} is gone; rank {self.rank} was waiting for it in {self.doing}"
