"""Decide which rank runs on which device: HCCL's JSON, or N simulated ranks. Opens no file.

The JSON keys are known here and nowhere else. HCCL writes numbers as strings; they become
ints here and stay ints. Each version of the format is one parser in ``_PARSERS``.
"""

from __future__ import annotations

import ipaddress
import json
from collections.abc import Callable, Hashable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Annotated, Any, Literal, TypeAlias, TypeVar

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, ValidationError

from launcher.errors import Problem, RankTableError
from launcher.validation import problems_of

SIMULATED_SERVER = "localhost"

T = TypeVar("T", bound=Hashable)


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

    @property
    def rank_size(self) -> int:
        return len(self.devices)

    @property
    def servers(self) -> tuple[str, ...]:
        """The servers in the order of their first ranks."""
        return tuple(dict.fromkeys(device.server_id for device in self.devices))


def simulated_rank_table(rank_size: int) -> RankTable:
    """Return the table of ``rank_size`` ranks on this host, without any device."""
    return RankTable(tuple(Device(rank, rank, SIMULATED_SERVER) for rank in range(rank_size)))


def parse_rank_table(text: str, source: str) -> RankTable:
    """Read a rank table; ``source`` names it in errors.

    Raises:
        RankTableError: with the JSON path, the reason and the fix of each broken rule.
    """
    try:
        document = json.loads(text)
    except json.JSONDecodeError as error:
        where = f"line {error.lineno}, column {error.colno}"
        fix = "mend the JSON; // comments are not allowed"
        raise RankTableError(source, [Problem(where, error.msg, fix)]) from error
    if not isinstance(document, dict):
        raise RankTableError(source, [Problem("$", "not a JSON object", "write {...}")])
    version = document.get("version")
    parser = _PARSERS.get(version) if isinstance(version, str) else None
    if parser is None:
        what = "missing" if version is None else f"{version!r} is not read"
        fix = f"versions that are read: {', '.join(map(repr, _PARSERS))} (a string)"
        raise RankTableError(source, [Problem("$.version", what, fix)])
    return parser(document, source)


def _digits(text: str) -> str:
    if not (text.isascii() and text.isdigit()):
        raise ValueError(f"{text!r} is not a number", "write digits in quotes")
    return text


def _addresses(text: str) -> str:
    for address in text.split(","):
        try:
            ipaddress.ip_address(address.strip())
        except ValueError:
            raise ValueError(f"{address!r} is no IP address", "see `hccn_tool -i N -ip -g`")
    return text


def _completed(status: str) -> str:
    if status == "initializing":
        raise ValueError("the table is not filled in yet", "start once it says 'completed'")
    if status != "completed":
        raise ValueError(f"{status!r} is not a usable status", "write 'completed'")
    return status


Digits: TypeAlias = Annotated[str, AfterValidator(_digits)]


class _Strict(BaseModel):
    # HCCL refuses values of version 1.x that are no strings, and ignores keys it does not know
    model_config = ConfigDict(strict=True, extra="ignore", frozen=True)


class _DeviceV1(_Strict):
    device_id: Digits
    rank_id: Digits
    device_ip: Annotated[str, AfterValidator(_addresses)] | None = None


class _ServerV1(_Strict):
    server_id: Annotated[str, Field(min_length=1, max_length=64)]
    device: Annotated[list[_DeviceV1], Field(min_length=1)]


class _TableV1(_Strict):
    version: Literal["1.0"]
    status: Annotated[str, AfterValidator(_completed)]
    server_count: Digits | None = None
    server_list: Annotated[list[_ServerV1], Field(min_length=1)]


def _parse_v1(document: Mapping[str, Any], source: str) -> RankTable:
    try:
        table = _TableV1.model_validate(document)
    except ValidationError as error:
        raise RankTableError(source, problems_of(error, (), "$")) from error
    devices = {
        f"$.server_list[{s}].device[{d}]": Device(
            int(entry.rank_id), int(entry.device_id), server.server_id, entry.device_ip or ""
        )
        for s, server in enumerate(table.server_list)
        for d, entry in enumerate(server.device)
    }
    problems = [
        *_server_problems(table),
        *_rank_problems(devices),
        *_device_problems(devices),
        *_address_problems(devices, several_servers=len(table.server_list) > 1),
    ]
    if problems:
        raise RankTableError(source, problems)
    return RankTable(tuple(sorted(devices.values(), key=lambda device: device.rank)))


def _server_problems(table: _TableV1) -> Iterator[Problem]:
    count, found = table.server_count, len(table.server_list)
    if count is not None and int(count) != found:
        what = f"{count}, but server_list holds {found}"
        yield Problem("$.server_count", what, f'write "{found}", or add the missing servers')
    names = ((f"$.server_list[{s}]", entry.server_id) for s, entry in enumerate(table.server_list))
    for path, name, first in _repeats(names):
        what = f"{name!r} is also {first}"
        yield Problem(f"{path}.server_id", what, "list all devices of a server in one place")


def _rank_problems(devices: Mapping[str, Device]) -> Iterator[Problem]:
    for path, rank, first in _repeats((path, device.rank) for path, device in devices.items()):
        yield Problem(f"{path}.rank_id", f"rank {rank} is also {first}", "give each device its own")
    size = len(devices)
    for path, device in devices.items():
        if device.rank >= size:
            what = f"rank {device.rank} in a table of {size} devices"
            yield Problem(f"{path}.rank_id", what, f"number the ranks 0 to {size - 1} without gaps")


def _device_problems(devices: Mapping[str, Device]) -> Iterator[Problem]:
    places = ((path, (device.server_id, device.device_id)) for path, device in devices.items())
    for path, (server_id, device_id), first in _repeats(places):
        what = f"device {device_id} of {server_id} is also {first}"
        yield Problem(f"{path}.device_id", what, "give each device one rank")


def _address_problems(devices: Mapping[str, Device], several_servers: bool) -> Iterator[Problem]:
    addresses = [
        (path, address.strip())
        for path, device in devices.items()
        for address in device.device_ip.split(",")
    ]
    for path, address in addresses:
        if several_servers and not address:
            fix = "devices of several servers need it, see `hccn_tool -i N -ip -g`"
            yield Problem(f"{path}.device_ip", "missing", fix)
    for path, address, first in _repeats((path, address) for path, address in addresses if address):
        yield Problem(f"{path}.device_ip", f"{address} is also {first}", "give each device its own")


def _repeats(places: Iterable[tuple[str, T]]) -> Iterator[tuple[str, T, str]]:
    """Yield each path whose value an earlier path has, the value, and that earlier path."""
    first: dict[T, str] = {}
    for path, value in places:
        if first.setdefault(value, path) != path:
            yield path, value, first[value]


_PARSERS: Mapping[str, Callable[[Mapping[str, Any], str], RankTable]] = {"1.0": _parse_v1}
