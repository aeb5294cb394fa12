"""Say where some ranks of a job run, and where they report."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

from launcher.host import Host


@dataclass(frozen=True)
class Where:
    """Where to listen, so that all ranks reach it; by default those of this host do."""

    listen: str = "127.0.0.1"  # "*": on all networks
    reach: str = "127.0.0.1"  # how ranks of this host call
    port: int | None = None  # None: a free one


@dataclass(frozen=True, kw_only=True)
class Site:
    """A host, or a slot of mpirun or srun on one, and the ranks that start there.

    Placement must know it, and it travels between hosts.
    """

    ranks: tuple[int, ...]
    host: Host
    environment: Mapping[str, str]  # of the process that will start them
    is_slot: bool = False  # its MPI variables are those of its only rank
    is_remote: bool = False  # not of the process that decides
    rank_table: str = ""  # where the table lies on this host; "": as the job says

    def to_dict(self) -> dict[str, Any]:
        """Return JSON values."""
        return asdict(self) | {"host": self.host.to_dict()}

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> Site:
        host, ranks = Host.from_dict(values["host"]), tuple(values["ranks"])
        return cls(**{**values, "host": host, "ranks": ranks})
