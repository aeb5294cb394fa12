"""Say which rank runs on which device: what a table of every format is read into."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

SIMULATED_SERVER = "localhost"  # of ranks that have no other name for where they are


@dataclass(frozen=True)
class Device:
    """One NPU and the rank that runs on it."""

    rank: int  # global: 0 .. rank_size - 1
    device_id: int  # index of the NPU on its own server: N of /dev/davinciN
    server_id: str  # address or name of the server, as HCCL knows it
    device_ip: str = ""  # of the NPU's own network port; "" where the table names none


@dataclass(frozen=True)
class RankTable:
    """Every device of a job."""

    devices: tuple[Device, ...]  # devices[rank]
    # server_id -> the other names and addresses that the table gives that server
    aliases: Mapping[str, tuple[str, ...]] = field(default_factory=dict)

    @property
    def rank_size(self) -> int:
        return len(self.devices)

    @property
    def servers(self) -> tuple[str, ...]:
        """The servers in the order of their first ranks."""
        return tuple(dict.fromkeys(device.server_id for device in self.devices))

    def devices_by_server(self) -> dict[str, list[Device]]:
        """Return the devices of each server, servers and devices in the order of their ranks."""
        found: dict[str, list[Device]] = {}
        for device in self.devices:
            found.setdefault(device.server_id, []).append(device)
        return found
