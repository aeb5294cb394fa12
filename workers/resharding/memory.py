"""Refuse a plan whose slices the memory of this host cannot hold, before anything is read."""

from __future__ import annotations

from pathlib import Path

from workers.resharding.errors import NoMemoryError
from workers.resharding.plan import LoadPlan

_MEMINFO = Path("/proc/meminfo")
_CGROUP_LIMIT = Path("/sys/fs/cgroup/memory.max")  # of a container


def require_memory(plan: LoadPlan) -> None:
    """Refuse to load if that cannot succeed; other processes may need memory, too.

    Raises:
        NoMemoryError: the slices alone take more than there is.
    """
    available = available_nbytes()
    if available is not None and plan.nbytes > available:
        raise NoMemoryError(plan.rank, plan.nbytes, available)


def available_nbytes() -> int | None:
    """Return how much memory this process may still get; None if the system does not tell."""
    told = [_available_on_host(), _limit_of_container()]
    return min((nbytes for nbytes in told if nbytes is not None), default=None)


def _available_on_host() -> int | None:
    for line in _text(_MEMINFO).splitlines():
        if line.startswith("MemAvailable:"):
            return int(line.split()[1]) * 1024  # the kernel says kB
    return None


def _limit_of_container() -> int | None:
    text = _text(_CGROUP_LIMIT).strip()
    return int(text) if text.isdigit() else None  # "max": none


def _text(path: Path) -> str:
    try:
        return path.read_text(encoding="ascii")
    except OSError:
        return ""
