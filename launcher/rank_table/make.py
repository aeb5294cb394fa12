"""Make a rank table of one server: who has which rank. Pure; the addresses are given."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from typing import Any

from launcher.errors import InvalidInputError, Problem

_PIECE = re.compile(r"(\d{1,4})(?:-(\d{1,4}))?")
_HALF_OPEN = re.compile(r"\[\s*(\d{1,4})\s*,\s*(\d{1,4})\s*\)")


def parse_devices(text: str) -> tuple[int, ...]:
    """Return the devices of ``0-7``, ``0,2,4-6``, or ``[0,8)`` as hccl_tools.py has it.

    Raises:
        InvalidInputError: the text is none of these, or names a device twice.
    """
    if half_open := _HALF_OPEN.fullmatch(text.strip()):
        devices = list(range(int(half_open[1]), int(half_open[2])))
    else:
        devices = []
        for piece in text.split(","):
            found = _PIECE.fullmatch(piece.strip())
            if found is None:
                raise _refusal(f"{piece.strip()!r} is no device", "write 0-7 or 0,1,4-7")
            devices += range(int(found[1]), int(found[2] or found[1]) + 1)
    if not devices:
        raise _refusal(f"{text!r} names no device", "the lower number comes first: 0-7")
    if len(set(devices)) < len(devices):
        raise _refusal(f"{text!r} names a device twice", "name each once")
    return tuple(devices)


def _refusal(what: str, fix: str) -> InvalidInputError:
    return InvalidInputError("", [Problem("--devices", what, fix)])


def make_table(
    server_id: str, device_ids: Sequence[int], addresses: Mapping[int, str], host_ip: str = ""
) -> dict[str, Any]:
    """Return a table of version 1.0; ranks are counted in the order of the devices.

    Args:
        addresses: device_ip of each device, or none at all.
    """
    devices = [
        {"device_id": str(device_id)}
        | ({"device_ip": addresses[device_id]} if addresses else {})
        | {"rank_id": str(rank)}
        for rank, device_id in enumerate(device_ids)
    ]
    server = {"server_id": server_id} | ({"host_ip": host_ip} if host_ip else {})
    return {
        "version": "1.0",
        "server_count": "1",
        "server_list": [{**server, "device": devices}],
        "status": "completed",
    }


def to_text(table: Mapping[str, Any]) -> str:
    """Return a table as the text of a file: a line for each device."""
    text = json.dumps(table, indent=2, ensure_ascii=False)
    flat = re.compile(r"\{\s*(\"[^{}\[\]]*\")\s*\}")
    return flat.sub(lambda found: "{" + re.sub(r"\s*\n\s*", " ", found[1]) + "}", text) + "\n"
