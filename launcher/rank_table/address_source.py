"""Decide where the addresses of this host's devices come from: the user, hccn_tool, hccn.conf."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from launcher.errors import HostError, InvalidInputError, Problem
from launcher.rank_table import hccn
from launcher.rank_table.waiting import read_text


@dataclass(frozen=True, kw_only=True)
class AddressSource:
    """What the user said of the addresses; at most one of these, and none: this host knows."""

    conf: Path | None = None  # a copy of /etc/hccn.conf
    output: Path | None = None  # what hccn_tool printed
    start: str | None = None  # address of the first device


def find_addresses(
    source: AddressSource,
    devices: Sequence[int] | None,
    here: Sequence[int],
    tell: Callable[[str], None],
) -> dict[int, str]:
    """Return the address of each device of a new table, by device_id.

    Args:
        devices: what the user asks for; None: every device that the source knows.
        here: the devices of this host.
        tell: is called with a line for people where two sources disagree.

    Raises:
        LauncherError: the source cannot be read, or lacks a device.
    """
    if source.conf is not None:
        known = hccn.parse_hccn_conf(read_text(source.conf))
        return _of_devices(known, devices, str(source.conf))
    if source.output is not None:
        found = hccn.parse_hccn_output(read_text(source.output))
        return _in_order(found, devices, str(source.output))
    if source.start is not None:
        return hccn.count_up(source.start, devices or here)
    return _of_this_host(devices, here, tell)


def _of_this_host(
    devices: Sequence[int] | None, here: Sequence[int], tell: Callable[[str], None]
) -> dict[int, str]:
    """Return what hccn_tool says, for that is true now; hccn.conf is what was once set."""
    tool, file = hccn.find_tool(), hccn.HCCN_CONF
    noted = hccn.parse_hccn_conf(read_text(file)) if file.exists() else {}
    if tool is None:
        if not noted:
            fix = "name the addresses with --device-ip-start, or leave them out: --no-device-ip"
            raise HostError(f"this host has neither hccn_tool nor {file}", fix)
        return _of_devices(noted, devices, str(file))
    asked = hccn.ask_tool(tool, devices or here)
    for device_id, address in asked.items():
        if noted.get(device_id, address) != address:
            stale = f"{file} says {noted[device_id]}"
            tell(f"device {device_id} has {address}, as hccn_tool says, though {stale}")
    return asked


def _of_devices(
    known: Mapping[int, str], devices: Sequence[int] | None, source: str
) -> dict[int, str]:
    lacking = [device for device in devices or () if device not in known]
    if lacking or not known:
        what = f"no address of device {', '.join(map(str, lacking))}" if lacking else "no addresses"
        fix = "a line address_N=... names the address of device N"
        raise InvalidInputError(source, [Problem("", what, fix)])
    return {device: known[device] for device in devices or sorted(known)}


def _in_order(found: Sequence[str], devices: Sequence[int] | None, source: str) -> dict[int, str]:
    chosen = range(len(found)) if devices is None else devices
    if not found or len(found) != len(chosen):
        what = f"addresses: {len(found)}, devices: {len(chosen)}"
        fix = "print `hccn_tool -i N -ip -g` for each device, in the order of --devices"
        raise InvalidInputError(source, [Problem("", what, fix)])
    return dict(zip(chosen, found, strict=True))
