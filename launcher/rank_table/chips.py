"""Check what one kind of chip refuses and another takes."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from launcher.rank_table.finding import Finding, error, warning
from launcher.rank_table.table import RankTable

NAMES = {"910": "Ascend 910", "310p": "300I Duo", "a2": "A2", "a3": "A3", "a5": "Ascend 950"}
CHIPS = tuple(NAMES)
NEEDS_ADDRESSES = ("910", "310p")
MOST_DEVICES = {"910": 8, "a2": 16, "a3": 16}  # of one server
COUNTS_OF_910 = (1, 2, 4, 8)
# Devices 0 to 3 are one ring, 4 to 7 the other; four devices are a ring, or pairs of both
FOURS_OF_910 = {
    *((0, 1, 2, 3), (4, 5, 6, 7), (0, 1, 4, 5), (0, 2, 4, 6)),
    *((0, 3, 4, 7), (1, 2, 5, 6), (1, 3, 5, 7), (2, 3, 6, 7)),
}


def check_chip(
    table: RankTable, version: str, chip: str | None, paths: Mapping[str, str]
) -> Iterator[Finding]:
    """Yield what the chip refuses; without a chip, warn of what an Ascend 910 would refuse.

    Args:
        paths: where the document names each server.
    """
    if chip is not None and (version == "2.0") != (chip == "a5"):
        fix = f"an {NAMES['a5']} reads version 2.0, all others read 1.0"
        hccl = f"EI0014 value {version} of version, expected a valid version number"
        yield error("$.version", f"an {NAMES[chip]} does not read {version}", fix, hccl)
        return
    if version == "2.0":
        return
    yield from _address_findings(table, version, chip, paths)
    if chip == "310p" and len(table.servers) > 1:
        what = f"{len(table.servers)} servers, but the 300I Duo talks inside one"
        yield error(paths[table.servers[1]], what, "name the devices of one server")
    most = MOST_DEVICES.get(chip or "a3")
    for device in table.devices:
        if most is not None and device.device_id >= most:
            what = f"device {device.device_id} of {device.server_id}: the last one is {most - 1}"
            hccl = f"device_id[{device.device_id}] more than {most - 1} is invalid"
            say = error if chip else warning
            yield say(paths[device.server_id], what, "see `ls /dev/davinci*`", hccl)
    fits_910 = all(device.device_id < MOST_DEVICES["910"] for device in table.devices)
    if chip == "910" or (chip is None and version != "1.2" and fits_910):
        yield from _findings_of_910(table, chip, paths)
    elif len({len(devices) for devices in table.devices_by_server().values()}) > 1:
        what = "the servers have different numbers of devices"
        yield warning(paths[table.servers[0]], what, "HCCL is made for equal numbers")


def _address_findings(
    table: RankTable, version: str, chip: str | None, paths: Mapping[str, str]
) -> Iterator[Finding]:
    lacking = sum(not device.device_ip for device in table.devices)
    if not lacking or len(table.servers) > 1 or version == "1.2":
        return
    what = f"{lacking} of {table.rank_size} devices have no device_ip"
    fix = "an Ascend 910 and a 300I Duo need it, others with HCCL_INTRA_ROCE_ENABLE=1"
    hccl = "EI0014 'device_ip' is not set correctly"
    if chip is None or chip in NEEDS_ADDRESSES:
        yield (error if chip else warning)(paths[table.servers[0]], what, fix, hccl)


def _findings_of_910(
    table: RankTable, chip: str | None, paths: Mapping[str, str]
) -> Iterator[Finding]:
    say = error if chip else warning
    by_server = table.devices_by_server()
    for server, devices in by_server.items():
        ids = tuple(sorted(device.device_id for device in devices))
        if len(ids) not in COUNTS_OF_910:
            what = f"an Ascend 910 does not run {len(ids)} devices of a server"
            hccl = "devnum  is invaild in server."  # so it says
            yield say(paths[server], what, "take 1, 2, 4 or 8", hccl)
        elif len(ids) == 4 and ids not in FOURS_OF_910:
            what = f"an Ascend 910 does not connect the devices {', '.join(map(str, ids))}"
            fix = "take 0-3, 4-7, or two of 0-3 and those that are 4 higher"
            yield say(paths[server], what, fix)
    first = table.servers[0]
    usual = len(by_server[first])
    for server, devices in by_server.items():
        if len(devices) != usual:
            what = f"{len(devices)} devices, but {first} has {usual}"
            fix = "an Ascend 910 wants the same number on each server, others run better so"
            hccl = f"EI0014 DeviceNum of server Id {server}, expected the same under each server"
            yield say(paths[server], what, fix, hccl)
