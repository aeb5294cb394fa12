"""Check which ranks there are, and how they lie on servers and devices."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from itertools import groupby, pairwise

from launcher.rank_table.finding import Entry, Finding, error, repeats, warning
from launcher.rank_table.table import RankTable


def check_ranks(entries: Sequence[Entry]) -> Iterator[Finding]:
    """Yield ranks that come twice, or lie outside of 0 to N - 1."""
    places = ((entry.rank_path, entry.device.rank) for entry in entries)
    size = len(entries)
    hccl = f"EI0014 rank_id is less than the communication size {size} and must be unique"
    for path, rank, first in repeats(places):
        what = f"rank {rank} is also {first.removesuffix('.rank_id')}"
        yield error(path, what, "give each device its own", hccl)
    for entry in entries:
        rank = entry.device.rank
        if rank >= size:
            what = f"rank {rank} in a table of {size} devices"
            fix = f"number the ranks 0 to {size - 1} without gaps"
            yield error(entry.rank_path, what, fix, hccl)


def check_devices(entries: Sequence[Entry]) -> Iterator[Finding]:
    """Yield devices of a server that come twice."""
    places = (
        (entry.path, (entry.device.server_id, entry.device.device_id)) for entry in entries
    )
    for path, (server_id, device_id), first in repeats(places):
        what = f"device {device_id} of {server_id} is also {first}"
        hccl = f"EI0014 device id repeat for one server: {device_id} of {server_id}"
        yield error(f"{path}.device_id", what, "give each device one rank", hccl)


def check_order(table: RankTable, paths: Mapping[str, str]) -> Iterator[Finding]:
    """Yield servers whose ranks lie between those of others, or out of order.

    Args:
        paths: where the document names each server.
    """
    runs = Counter(server_id for server_id, _ in groupby(d.server_id for d in table.devices))
    for server_id, devices in table.devices_by_server().items():
        if runs[server_id] > 1:
            ranks = ", ".join(str(device.rank) for device in devices)
            what = f"the ranks of {server_id} ({ranks}) lie between those of other servers"
            yield warning(paths[server_id], what, "give each server ranks without gaps")
    for before, after in pairwise(table.servers):
        if before > after:
            what = f"{after!r} has higher ranks than {before!r}, but comes first in a dictionary"
            fix = "number the ranks by server_id, as `rank-table merge` does: MindSpore expects it"
            yield warning(paths[after], what, fix)
            return
