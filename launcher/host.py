"""Look at what this host has: cores, devices, names and addresses. Decides nothing."""

from __future__ import annotations

import importlib.util
import os
import socket
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from itertools import chain
from pathlib import Path
from typing import Any

import psutil

from launcher.text import parse_ranges


@dataclass(frozen=True, kw_only=True)
class Host:
    """What ranks can run on here, and by what others know it."""

    cpus: tuple[int, ...]  # the numbers of those that this process may use
    numa: tuple[tuple[int, ...], ...] = ()  # the CPUs of each node, whether usable or not
    ascend_devices: frozenset[int] = frozenset()  # N of each /dev/davinciN
    gpu_devices: frozenset[int] = frozenset()  # N of each /dev/nvidiaN
    name: str = ""  # as the kernel has it; may or may not hold the domain
    addresses: tuple[str, ...] = ()  # of every network interface
    has_mpi: bool = False  # mpi4py is installed
    machine: str = ""  # equal for processes that reach each other through memory

    @property
    def cores(self) -> int:
        return len(self.cpus)

    def to_dict(self) -> dict[str, Any]:
        """Return JSON values."""
        devices = (self.ascend_devices, self.gpu_devices)
        return asdict(self) | dict(zip(("ascend_devices", "gpu_devices"), map(sorted, devices)))

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> Host:
        sets = {key: frozenset(values[key]) for key in ("ascend_devices", "gpu_devices")}
        tuples = {key: tuple(values[key]) for key in ("cpus", "addresses")}
        return cls(**{**values, **sets, **tuples, "numa": tuple(map(tuple, values["numa"]))})


def look_around(
    devices: Path = Path("/dev"), nodes: Path = Path("/sys/devices/system/node")
) -> Host:
    """Return what is visible to this process, which in a container is less than the machine has."""
    return Host(
        cpus=tuple(sorted(os.sched_getaffinity(0))),
        numa=_numa(nodes),
        ascend_devices=_numbered(devices, "davinci"),
        gpu_devices=_numbered(devices, "nvidia"),
        name=socket.gethostname(),
        addresses=_addresses(),
        has_mpi=importlib.util.find_spec("mpi4py") is not None,
        machine=_machine(),
    )


def _numa(nodes: Path) -> tuple[tuple[int, ...], ...]:
    """Read ``0-3,8-11`` of each node; containers may hide them."""
    found = []
    for number in sorted(_numbered(nodes, "node")):
        text = (nodes / f"node{number}" / "cpulist").read_text(encoding="ascii").strip()
        found.append(tuple(chain(*parse_ranges(text))))
    return tuple(found)


def _numbered(folder: Path, prefix: str) -> frozenset[int]:
    endings = (path.name.removeprefix(prefix) for path in folder.glob(f"{prefix}*"))
    return frozenset(int(ending) for ending in endings if ending.isdecimal())


def _machine() -> str:
    """Name the running kernel and its part that this process sees: containers have their own."""
    boot = Path("/proc/sys/kernel/random/boot_id").read_text(encoding="ascii").strip()
    return f"{boot}:{os.stat('/proc/self/ns/net').st_ino}:{os.stat('/proc/self/ns/pid').st_ino}"


def _addresses() -> tuple[str, ...]:
    """Return the addresses of the interfaces; a name server would know others, or a wrong one."""
    return tuple(
        address.address.partition("%")[0]  # fe80::1%eth0 names its interface
        for interface in psutil.net_if_addrs().values()
        for address in interface
        if address.family in (socket.AF_INET, socket.AF_INET6)
    )
