"""Find the addresses of devices: in /etc/hccn.conf, in what hccn_tool says, or counted up."""

from __future__ import annotations

import ipaddress
import re
import shutil
import subprocess
from collections.abc import Sequence
from pathlib import Path

from launcher.errors import HostError, InvalidInputError, Problem

HCCN_CONF = Path("/etc/hccn.conf")
TOOL_FOLDER = "/usr/local/Ascend/driver/tools"
TOOL_TIMEOUT_S = 30.0


def parse_hccn_conf(text: str) -> dict[int, str]:
    """Return the address of each device that a hccn.conf names, by device_id."""
    lines = re.findall(r"^\s*address_(\d+)\s*=\s*(\S+)\s*$", text, re.MULTILINE)
    return {int(device_id): address for device_id, address in lines}


def parse_hccn_output(text: str) -> list[str]:
    """Return the addresses in the output of ``hccn_tool -i N -ip -g`` for one or more N."""
    return re.findall(r"^\s*ipaddr\s*:\s*(\S+)", text, re.MULTILINE)


def count_up(start: str, device_ids: Sequence[int]) -> dict[int, str]:
    """Return addresses that follow each other, the first for the first device.

    Raises:
        InvalidInputError: ``start`` is no address, or there are none left behind it.
    """
    try:
        first = ipaddress.ip_address(start)
        return {device_id: str(first + place) for place, device_id in enumerate(device_ids)}
    except ValueError as error:
        raise InvalidInputError("", [Problem("--device-ip-start", str(error))]) from error


def find_tool() -> str | None:
    """Return the path of hccn_tool, if this host has one."""
    return shutil.which("hccn_tool") or shutil.which("hccn_tool", path=TOOL_FOLDER)


def ask_tool(tool: str, device_ids: Sequence[int]) -> dict[int, str]:
    """Return what hccn_tool says of devices of this host.

    Raises:
        HostError: it failed, or knows no address of a device.
    """
    found: dict[int, str] = {}
    for device_id in device_ids:
        command = [tool, "-i", str(device_id), "-ip", "-g"]
        try:
            child = subprocess.run(command, capture_output=True, text=True, timeout=TOOL_TIMEOUT_S)
        except (OSError, subprocess.TimeoutExpired) as error:
            raise HostError(str(error), _INSTEAD) from error
        addresses = parse_hccn_output(child.stdout)
        if child.returncode or len(addresses) != 1:
            said = " ".join((child.stderr + child.stdout).split()) or "nothing"
            raise HostError(f"`{' '.join(command)}` said: {said}", _INSTEAD)
        found[device_id] = addresses[0]
    return found


_INSTEAD = "name the addresses with --hccn-conf, --hccn-output or --device-ip-start"
