"""Look at what this host has: cores, devices, names and addresses. Decides nothing."""

from __future__ import annotations

import os
import socket
from dataclasses import dataclass
from pathlib import Path

import psutil


@dataclass(frozen=True, kw_only=True)
class Host:
    """What ranks can run on here, and by what others know it."""

    cores: int  # that this process may use
    ascend_devices: frozenset[int] = frozenset()  # N of each /dev/davinciN
    gpu_devices: frozenset[int] = frozenset()  # N of each /dev/nvidiaN
    name: str = ""  # as the kernel has it; may or may not hold the domain
    addresses: tuple[str, ...] = ()  # of every network interface


def look_around(devices: Path = Path("/dev")) -> Host:
    """Return what is visible to this process, which in a container is less than the machine has."""
    return Host(
        cores=len(os.sched_getaffinity(0)),
        ascend_devices=_numbered(devices, "davinci"),
        gpu_devices=_numbered(devices, "nvidia"),
        name=socket.gethostname(),
        addresses=_addresses(),
    )


def _numbered(folder: Path, prefix: str) -> frozenset[int]:
    endings = (path.name.removeprefix(prefix) for path in folder.glob(f"{prefix}*"))
    return frozenset(int(ending) for ending in endings if ending.isdecimal())


def _addresses() -> tuple[str, ...]:
    """Return the addresses of the interfaces; a name server would know others, or a wrong one."""
    return tuple(
        address.address.partition("%")[0]  # fe80::1%eth0 names its interface
        for interface in psutil.net_if_addrs().values()
        for address in interface
        if address.family in (socket.AF_INET, socket.AF_INET6)
    )
