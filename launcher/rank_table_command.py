"""Carry out ``launcher rank-table``: check, make and merge rank tables, and find the own server."""

from __future__ import annotations

import argparse
import json
import os
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from launcher.errors import HostError, Problem, RankTableError
from launcher.host import Host, look_around
from launcher.own_server import find_own_server
from launcher.rank_table.address_source import AddressSource, find_addresses
from launcher.rank_table.chips import CHIPS
from launcher.rank_table.finding import Finding
from launcher.rank_table.frame import file_findings
from launcher.rank_table.make import make_table, parse_devices, to_text
from launcher.rank_table.merge import merge_tables
from launcher.rank_table.reading import Reading, read_rank_table
from launcher.rank_table.table import RankTable
from launcher.rank_table.waiting import await_table, load_rank_table, read_text
from launcher.text import plural
from launcher.visible_devices import VARIABLE, own_numbers, visible_devices
from workers.resharding.atomic import atomic_file

UNUSABLE = 2


def add_flags(parser: argparse.ArgumentParser) -> None:
    """Describe the command line."""
    commands = parser.add_subparsers(dest="action", required=True, metavar="ACTION")
    check = commands.add_parser("check", help="say what HCCL would refuse, before it does")
    check.add_argument("file", type=Path, metavar="FILE")
    check.add_argument("--chip", choices=CHIPS, help="check what this chip refuses, too")
    check.add_argument(
        "--wait", type=_limit, default=0.0, metavar="S", help="wait until the table is filled in"
    )
    make = commands.add_parser("make", help="make the table of one server")
    _add_make_flags(make)
    merge = commands.add_parser("merge", help="make one table of those of several servers")
    merge.add_argument("files", type=Path, nargs="+", metavar="FILE")
    host = commands.add_parser("host", help="say which server of a table this host is")
    host.add_argument("file", type=Path, metavar="FILE")
    host.add_argument("--node", metavar="NAME", help="a server_id, or its place: 0, 1, ...")
    for command in (make, merge):
        command.add_argument(
            "--output", type=Path, metavar="FILE", help="where to write it (default: print it)"
        )
    for command in (check, make, merge, host):
        command.add_argument(
            "--json",
            dest="as_json",
            action="store_true",
            default=argparse.SUPPRESS,
            help="print JSON for programs",
        )


def _limit(text: str) -> float:
    value = float(text)
    if not value >= 0:  # NaN is not, and would never be over
        raise argparse.ArgumentTypeError(f"{text!r} is no number of seconds")
    return value


def _add_make_flags(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--devices", metavar="LIST", help="0-7, or 0,1,4-7 (default: all that are found)"
    )
    parser.add_argument(
        "--server", metavar="NAME", help="address or name (default: this host's only address)"
    )
    parser.add_argument("--host-ip", default="", metavar="IP", help="the host's own address")
    parser.add_argument("--chip", choices=CHIPS, help="check what this chip refuses, too")
    source = parser.add_argument_group(
        "addresses of the devices (default: ask hccn_tool, or else read /etc/hccn.conf)"
    ).add_mutually_exclusive_group()
    source.add_argument("--hccn-conf", type=Path, metavar="FILE", help="a copy of /etc/hccn.conf")
    source.add_argument(
        "--hccn-output", type=Path, metavar="FILE", help="what `hccn_tool -i N -ip -g` printed"
    )
    source.add_argument("--device-ip-start", metavar="IP", help="of the first; the rest follow it")
    source.add_argument("--no-device-ip", action="store_true", help="leave them out")


def execute(arguments: argparse.Namespace, as_json: bool = False) -> int:
    """Carry out what the arguments ask for, and return the exit code."""
    actions = {"check": _check, "make": _make, "merge": _merge, "host": _host}
    return actions[arguments.action](arguments, as_json)


def _check(arguments: argparse.Namespace, as_json: bool) -> int:
    path: Path = arguments.file
    reading = await_table(
        lambda: read_rank_table(read_text(path), arguments.chip),
        str(path),
        arguments.wait,
        lambda line: print(line, file=sys.stderr),
    )
    findings = (*file_findings(str(path.absolute())), *reading.findings)
    usable = not any(finding.is_error for finding in findings)
    if as_json:
        print(json.dumps(_report(path, reading, findings, usable), indent=2))
    else:
        print(*_lines(path, reading, findings, usable), sep="\n")
    return 0 if usable else UNUSABLE


def _report(
    path: Path, reading: Reading, findings: tuple[Finding, ...], usable: bool
) -> dict[str, Any]:
    table = reading.table
    return {
        "file": str(path),
        "usable": usable,
        "version": reading.version or None,
        "servers": list(table.servers) if table else None,
        "ranks": table.rank_size if table else None,
        "findings": [finding.to_dict() for finding in findings],
    }


def _lines(
    path: Path, reading: Reading, findings: tuple[Finding, ...], usable: bool
) -> list[str]:
    lines: list[str] = []
    for finding in findings:
        place = f"{path}:{finding.line}" if finding.line else str(path)
        lines.append(f"{place}: {'error' if finding.is_error else 'warning'}: {finding.where}")
        lines.append(f"    {finding.what}")
        lines += [f"    HCCL: {finding.hccl}"] if finding.hccl else []
        lines += [f"    fix:  {finding.fix}"] if finding.fix else []
    counts = [
        plural(sum(finding.is_error is kind for finding in findings), word)
        for kind, word in ((True, "error"), (False, "warning"))
    ]
    held = f", version {reading.version}" if reading.version else ""
    if table := reading.table:
        held += f", {plural(len(table.servers), 'server')}, {plural(table.rank_size, 'rank')}"
    verdict = "usable" if usable else "not usable"
    return [*lines, f"{path}: {verdict}{held}; {', '.join(counts)}"]


def _make(arguments: argparse.Namespace, as_json: bool) -> int:
    host = look_around()
    here = sorted(host.ascend_devices)
    devices = parse_devices(arguments.devices) if arguments.devices else None
    addresses: dict[int, str] = {}
    if not arguments.no_device_ip:
        source = AddressSource(
            conf=arguments.hccn_conf,
            output=arguments.hccn_output,
            start=arguments.device_ip_start,
        )
        addresses = find_addresses(source, devices, here, _tell)
    chosen = devices or tuple(addresses) or tuple(here)
    if not chosen:
        raise HostError("no device is found on this host", "name them with --devices 0-7")
    server = arguments.server or _only_address(host)
    _write(make_table(server, chosen, addresses, arguments.host_ip), arguments, as_json)
    return 0


def _only_address(host: Host) -> str:
    """Return the address by which other hosts know this one, if there is no doubt."""
    found = [text for text in host.addresses if "." in text and not text.startswith("127.")]
    if len(found) != 1:
        what = f"this host has not one address but {', '.join(found) or 'none'}"
        raise HostError(what, "name the one that other hosts know with --server")
    return found[0]


def _merge(arguments: argparse.Namespace, as_json: bool) -> int:
    documents: dict[str, dict[str, Any]] = {}
    for path in arguments.files:
        text = read_text(path)
        reading = read_rank_table(text)
        if reading.table is None:
            raise RankTableError(str(path), reading.errors)
        document = json.loads(text)
        if "server_list" not in document:
            what = f"version {reading.version} has no server_list"
            raise RankTableError(str(path), [Problem("$", what, "merge versions 1.0 and 1.2")])
        if str(path) in documents:
            raise RankTableError(str(path), [Problem("", "named twice", "name each table once")])
        documents[str(path)] = document
    _write(merge_tables(documents), arguments, as_json)
    return 0


def _write(document: Mapping[str, Any], arguments: argparse.Namespace, as_json: bool) -> None:
    """Write a table, or print it, unless HCCL would refuse it."""
    text = to_text(document)
    reading = read_rank_table(text, getattr(arguments, "chip", None))
    if reading.table is None:
        raise RankTableError("the new table", reading.errors)
    for finding in reading.warnings:
        _tell(str(finding))
    if arguments.output is None:
        print(text, end="")
        return
    for finding in file_findings(str(arguments.output.absolute())):
        _tell(f"{arguments.output}: {finding}")
    with atomic_file(arguments.output) as file:
        file.write(text.encode())
    servers, ranks = reading.table.servers, reading.table.rank_size
    if as_json:
        written = {"file": str(arguments.output), "servers": list(servers), "ranks": ranks}
        print(json.dumps(written, indent=2))
    else:
        print(f"{arguments.output}: {plural(len(servers), 'server')}, {plural(ranks, 'rank')}")


def _tell(line: str) -> None:
    print(f"warning: {line}", file=sys.stderr)


def _host(arguments: argparse.Namespace, as_json: bool) -> int:
    table = load_rank_table(arguments.file, 0.0, _tell)
    server = find_own_server(table, look_around(), os.environ, arguments.node)
    devices, visible = table.devices_by_server()[server], visible_devices(os.environ)
    numbers = own_numbers((device.device_id for device in devices), visible)
    rows = [
        {"rank": device.rank, "device_id": device.device_id, "number": numbers[device.device_id]}
        for device in devices
    ]
    if as_json:
        print(json.dumps({"server_id": server, "ranks": rows}, indent=2))
        return 0
    shown = "all devices are visible" if visible is None else f"{VARIABLE} renumbers the devices"
    print(f"this host is {server}, {_place(table, server)}; {shown}")
    for row in rows:
        print("rank {rank:<4} device {device_id:<4} DEVICE_ID={number}".format(**row))
    return 0


def _place(table: RankTable, server: str) -> str:
    return f"server {table.servers.index(server)} of {len(table.servers)}"
