"""Look at what this host has: cores and devices. Decides nothing."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True, kw_only=True)
class Host:
    """What ranks can run on here."""

    cores: int  # that this process may use
    ascend_devices: frozenset[int] = frozenset()  # N of each /dev/davinciN
    gpu_devices: frozenset[int] = frozenset()  # N of each /dev/nvidiaN


def look_around(devices: Path = Path("/dev")) -> Host:
    """Return what is visible to this process, which in a container is less than the machine has."""
    return Host(
        cores=len(os.sched_getaffinity(0)),
        ascend_devices=_numbered(devices, "davinci"),
        gpu_devices=_numbered(devices, "nvidia"),
    )


def _numbered(folder: Path, prefix: str) -> frozenset[int]:
    endings = (path.name.removeprefix(prefix) for path in folder.glob(f"{prefix}*"))
    return frozenset(int(ending) for ending in endings if ending.isdecimal())
