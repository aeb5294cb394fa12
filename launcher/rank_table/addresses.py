"""Check the addresses of devices and servers against each other."""

from __future__ import annotations

import ipaddress
from collections.abc import Iterator, Sequence

from launcher.rank_table.finding import Entry, Finding, error, repeats, warning


def check_addresses(entries: Sequence[Entry]) -> Iterator[Finding]:
    """Yield addresses that devices share, and devices with other kinds of them than the first."""
    places = [(f"{entry.path}.device_ip", text) for entry in entries for text in entry.addresses]
    for path, address, first in repeats(places):
        hccl = f"EI0014 [device_ip]:[{address}] is already exist"
        yield error(path, f"{address} is also {first}", "give each device its own", hccl)
    usual = max(1, len(entries[0].addresses))  # where there is none, HCCL counts an invalid one
    for entry in entries:
        count = max(1, len(entry.addresses))
        if count != usual:
            what = f"{count} addresses, but the first device has {usual}"
            hccl = f"device size[{count}] neq first device size[{usual}] error"
            yield error(f"{entry.path}.device_ip", what, "give all devices as many", hccl)
    if len({entry.device.server_id for entry in entries}) > 1:
        yield from check_families(places, "EI0001 device ip family is not same as others")


def check_families(places: Sequence[tuple[str, str]], hccl: str) -> Iterator[Finding]:
    """Yield the paths of addresses of another family than the first."""
    for path, address in places[1:]:
        first, usual = places[0][0], _family(places[0][1])
        if _family(address) != usual:
            what = f"{address} is {_family(address)}, but {first} is {usual}"
            yield error(path, what, f"use {usual} addresses everywhere", hccl)


def check_server_ids(entries: Sequence[Entry]) -> Iterator[Finding]:
    """Yield servers whose id is the address by which every host knows itself."""
    for path, name in dict.fromkeys((e.server_path, e.device.server_id) for e in entries):
        if name.startswith("127.") or name in ("localhost", "::1"):
            what = f"{name!r} is every host's name for itself"
            fix = "write the address that other hosts reach this one by, or a name of your own"
            yield warning(path, what, fix)


def _family(address: str) -> str:
    return f"IPv{ipaddress.ip_address(address).version}"
