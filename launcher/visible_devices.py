"""Decide which number a device has for a process that is shown only some of the host's devices.

A rank table counts the NPUs of a host, N of /dev/davinciN. Under ASCEND_RT_VISIBLE_DEVICES=2,3 a
process counts those it is shown: 0 and 1. HCCL compares the two and ends with "ranktable config
devId[1],but local devId[3]" where they were mixed up.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from launcher.errors import HostError

VARIABLE = "ASCEND_RT_VISIBLE_DEVICES"


def visible_devices(environment: Mapping[str, str]) -> tuple[int, ...] | None:
    """Return the devices that a process is shown, in its own order; None: all of the host.

    Raises:
        HostError: the variable holds something else than different numbers.
    """
    text = environment.get(VARIABLE)
    if text is None:
        return None
    pieces = [piece.strip() for piece in text.split(",")]
    if not all(piece.isascii() and piece.isdecimal() for piece in pieces):
        raise HostError(f"{VARIABLE}={text} is no list of devices", "write 0,1,2,3, or unset it")
    devices = tuple(map(int, pieces))
    if len(set(devices)) < len(devices):
        raise HostError(f"{VARIABLE}={text} names a device twice", "name each once")
    return devices


def own_numbers(
    device_ids: Iterable[int], visible: tuple[int, ...] | None
) -> dict[int, int]:
    """Return, for devices of a rank table, the numbers by which a process asks for them.

    Raises:
        HostError: a device is hidden from the process.
    """
    numbers: dict[int, int] = {}
    for device_id in device_ids:
        if visible is None:
            numbers[device_id] = device_id
        elif device_id in visible:
            numbers[device_id] = visible.index(device_id)
        else:
            shown = ",".join(map(str, visible))
            what = f"device {device_id} of the rank table is hidden by {VARIABLE}={shown}"
            raise HostError(what, "show it, or take it out of the table")
    return numbers
