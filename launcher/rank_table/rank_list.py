"""Read tables of version 2.0 (Ascend 950): ``rank_list``, with ``level_list`` for each rank.

Such a table names no servers. The instance of a rank's innermost network layer stands for its
server, and the IP addresses of a rank are those of its host: devices have EIDs.
"""

from __future__ import annotations

import ipaddress
import re
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from itertools import pairwise
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, Field

from launcher.rank_table.finding import Draft, Entry, Finding, error, repeats, warning
from launcher.rank_table.shape import validated
from launcher.rank_table.table import Device
from launcher.rank_table.values import RankId, Strict, UpTo7, UpTo64, Whole, WholePort, within

BACKUP = 64  # the local_id of the rank that replaces a broken one
DRAFT_KEYS = {  # of an early draft of the format -> what they became
    "level": "net_layer",
    "id": "net_instance_id",
    "fabric_type": "net_type",
    "rank_addr_type": "addr_type",
    "rank_addrs": "rank_addr_list",
    "replace_list": "replaced_local_id",
}

PortName = Annotated[str, Field(min_length=1, max_length=32)]


class _Address(Strict):
    addr_type: Literal["EID", "IPV4", "IPV6"]
    addr: Annotated[str, Field(min_length=1, max_length=256)]
    ports: Annotated[list[PortName], Field(min_length=1, max_length=16)]
    plane_id: str = "0"


class _Level(Strict):
    net_layer: UpTo7
    net_instance_id: Annotated[str, Field(min_length=1, max_length=1024)]
    net_type: Literal["TOPO_FILE_DESC", "CLOS", "1DMESH", "2DMESH", "A3_SERVER", "A2_AX_SERVER"] = (
        "TOPO_FILE_DESC"
    )
    rank_addr_list: Annotated[list[_Address], Field(max_length=24)]


class _ControlPlane(Strict):
    addr: str = ""


class _Rank(Strict):
    rank_id: RankId
    local_id: UpTo64
    replaced_local_id: Any = None  # read for the backup alone; checked there
    device_id: UpTo64
    device_port: WholePort = 16666
    host_port: WholePort = 16666
    level_list: Annotated[list[_Level], Field(min_length=1, max_length=8)]
    control_plane: _ControlPlane | None = None


class _Table(Strict):
    rank_count: Annotated[Whole, AfterValidator(within(1, 65536))]
    rank_list: Annotated[list[_Rank], Field(min_length=1)]
    detour: Literal["true", "false", ""] = ""


def parse(document: Mapping[str, Any]) -> Draft:
    """Return what a document holds.

    Raises:
        ShapeError: a value is missing, has another type than HCCL wants, or is out of bounds.
    """
    table = validated(_Table, document)
    paths = {f"$.rank_list[{index}]": rank for index, rank in enumerate(table.rank_list)}
    entries = tuple(
        Entry(
            Device(rank.rank_id, rank.device_id, rank.level_list[0].net_instance_id),
            path=path,
            rank_path=f"{path}.rank_id",
            server_path=f"{path}.level_list[0].net_instance_id",
        )
        for path, rank in paths.items()
    )
    findings = [
        *_count_findings(table),
        *(finding for path, rank in paths.items() for finding in _level_findings(rank, path)),
        *_size_findings(paths),
        *_local_id_findings(paths),
    ]
    return Draft(entries, tuple(findings), _aliases(table))


def strangers(document: Mapping[str, Any]) -> Iterator[Finding]:
    """Yield the keys of the draft from which the format came; HCCL does not read them."""
    if "oxc_group_list" in document or "server_list" in document:
        what = "a table of servers, as optical cross-connects have it, is not read here"
        yield error("$.version", what, "name a table with a rank_list, or of version 1.0 or 1.2")
    ranks = document.get("rank_list")
    for path, record in _records(ranks if isinstance(ranks, list) else [], "$.rank_list"):
        for key in DRAFT_KEYS.keys() & record.keys():
            what = "a key of a draft of version 2.0; HCCL ignores it"
            yield warning(f"{path}.{key}", what, f"write {DRAFT_KEYS[key]}")


def _records(values: Sequence[Any], path: str) -> Iterator[tuple[str, Mapping[str, Any]]]:
    """Yield the ranks, and their levels, that are objects at all."""
    for index, value in enumerate(values):
        if isinstance(value, dict):
            yield f"{path}[{index}]", value
            levels = value.get("level_list")
            if isinstance(levels, list):
                yield from _records(levels, f"{path}[{index}].level_list")


def _count_findings(table: _Table) -> Iterator[Finding]:
    count, held = table.rank_count, len(table.rank_list)
    if count != held:
        hccl = f"EI0014 value {count} of rankCount, expected rankSize[{held}]"
        yield error("$.rank_count", f"{count}, but rank_list holds {held}", f"write {held}", hccl)


def _level_findings(rank: _Rank, path: str) -> Iterator[Finding]:
    layers = [level.net_layer for level in rank.level_list]
    for index, (before, after) in enumerate(pairwise(layers), start=1):
        if after <= before:
            where = f"{path}.level_list[{index}].net_layer"
            hccl = "failed with level is not increased in sequence"
            yield error(where, f"{after} after {before}", "list the layers from low to high", hccl)
    for index, level in enumerate(rank.level_list):
        for a, address in enumerate(level.rank_addr_list):
            where = f"{path}.level_list[{index}].rank_addr_list[{a}].addr"
            if not _is_address(address):
                what = f"{address.addr!r} is no {address.addr_type} address"
                fix = "32 hex digits, see hccn_tool" if address.addr_type == "EID" else "mend it"
                yield error(where, what, fix, "failed with addr is error")


def _is_address(address: _Address) -> bool:
    if address.addr_type == "EID":
        return re.fullmatch(r"[0-9A-Fa-f]{32}", address.addr) is not None
    try:
        return f"IPV{ipaddress.ip_address(address.addr).version}" == address.addr_type
    except ValueError:
        return False


def _size_findings(ranks: Mapping[str, _Rank]) -> Iterator[Finding]:
    """Yield the levels with another number of addresses than others in the same instance."""
    first: dict[tuple[int, str], tuple[str, int]] = {}
    for path, rank in ranks.items():
        for index, level in enumerate(rank.level_list):
            where, size = f"{path}.level_list[{index}].rank_addr_list", len(level.rank_addr_list)
            instance = (level.net_layer, level.net_instance_id)
            earlier, usual = first.setdefault(instance, (where, size))
            if size != usual:
                what = f"{size} addresses, but {earlier} has {usual} in the same instance"
                hccl = "failed with the size of rank_addrs with the same id is different"
                yield error(where, what, "give all ranks of an instance as many", hccl)


def _local_id_findings(ranks: Mapping[str, _Rank]) -> Iterator[Finding]:
    """Yield ranks that are the same on their server, and what is wrong with the backup."""
    for key in ("local_id", "device_id"):
        places = (
            (f"{path}.{key}", (rank.level_list[0].net_instance_id, getattr(rank, key)))
            for path, rank in ranks.items()
            if rank.local_id != BACKUP
        )
        for path, (server, number), first in repeats(places):
            what = f"{number} of {server} is also {first}"
            yield warning(path, what, "give each rank of a server its own")
    backups = [(path, rank) for path, rank in ranks.items() if rank.local_id == BACKUP]
    for path, _ in backups[1:]:
        hccl = "EI0014 multiple replaced rank is configured"
        yield error(f"{path}.local_id", "a second backup", "one rank has local_id 64", hccl)
    running = {rank.local_id for rank in ranks.values()}
    for path, rank in backups:
        replaced, where = rank.replaced_local_id, f"{path}.replaced_local_id"
        if type(replaced) is not int or not 0 <= replaced < BACKUP:
            fix = "name the local_id of the rank that this one replaces, 0 to 63"
            hccl = f"replaced_local_id [{replaced}] is out of range [0] to [63]"
            yield error(where, "missing" if replaced is None else f"{replaced!r}", fix, hccl)
        elif replaced in running:
            hccl = "EI0014 failed with configuring same local_id with replaced one simutaneously"
            yield error(where, f"{replaced} is in the table", "drop the rank it replaces", hccl)


def _aliases(table: _Table) -> dict[str, tuple[str, ...]]:
    names: dict[str, dict[str, None]] = defaultdict(dict)
    for rank in table.rank_list:
        own = names[rank.level_list[0].net_instance_id]
        own.update(
            (address.addr, None)
            for level in rank.level_list
            for address in level.rank_addr_list
            if address.addr_type != "EID"
        )
        if rank.control_plane and rank.control_plane.addr:
            own[rank.control_plane.addr] = None
    return {server: tuple(own) for server, own in names.items()}
