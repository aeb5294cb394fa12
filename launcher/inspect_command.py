"""Carry out ``launcher inspect``: print what a checkpoint, strategy file or rank table holds."""

from __future__ import annotations

import argparse
import json
import os
import sys
from collections.abc import Callable, Iterator
from typing import Any

from rich.table import Table

from launcher.cache_flags import add_cache_flags
from launcher.console import make_console
from launcher.errors import JobError
from launcher.inspect_report import inspect
from launcher.text import plural, shape, size, visible
from workers.resharding.encryption import read_key
from workers.resharding.errors import ReshardError
from workers.resharding.picture import ranges
from workers.resharding.remote.cache import Cache


def add_flags(parser: argparse.ArgumentParser) -> None:
    """Describe the command line."""
    parser.add_argument(
        "file",
        metavar="FILE",
        help="checkpoint file, strategy file, rank table, or with --strategy a folder or pattern;"
        " or a URL of these",
    )
    parser.add_argument(
        "--strategy", metavar="FILE", help="what a set of slices was saved with: who holds what"
    )
    parser.add_argument("--key-file", metavar="FILE", help="key of encrypted files")
    add_cache_flags(parser)


def execute(flags: argparse.Namespace, as_json: bool) -> int:
    """Find out what the file is, and print it."""
    try:
        key = read_key(flags.key_file, os.environ)
        cache = Cache.of(os.environ, flags.cache, flags.cache_size)
        document = inspect(flags.file, flags.strategy, key, cache)
    except ReshardError as error:
        raise JobError.about("inspect", str(error)) from error
    if as_json:
        print(json.dumps(document, indent=2))
        return 0
    console = make_console(sys.stdout)
    for part in _PRINTERS[document["kind"]](document):
        console.print(part, soft_wrap=isinstance(part, str))
    return 0


def _print_rank_table(document: dict[str, Any]) -> Iterator[Table | str]:
    yield f"rank table  {document['path']}: {plural(len(document['devices']), 'rank')}"
    yield _table(("rank", "server_id", "device_id", "ip"), document["devices"])


def _print_checkpoint(document: dict[str, Any]) -> Iterator[Table | str]:
    crc32 = "" if document["crc32"] is None else f", CRC-32 {document['crc32']:08x}"
    cipher = f", {document['cipher']}" if document["cipher"] else ""
    yield (
        f"checkpoint  {document['path']}: {document['format']}, {size(document['bytes'])}{crc32}"
        f"{cipher}, {plural(len(document['parameters']), 'tensor')}"
    )
    rows = [
        {
            "name": name,
            "dtype": item["dtype"],
            "shape": shape(tuple(item["shape"])),
            "size": size(item["bytes"]),
            "chunks": item["chunks"],
        }
        for name, item in document["parameters"].items()
    ]
    yield _table(("name", "dtype", "shape", "size", "chunks"), rows)


def _print_layouts(document: dict[str, Any]) -> Iterator[Table | str]:
    if document["kind"] == "strategy":
        count = plural(document["ranks"], "rank")
        yield f"strategy    {document['path']}: {count}"
    else:
        yield f"checkpoint  {plural(len(document['files']), 'file')}, {size(document['bytes'])}"
    pictures: dict[str, list[str]] = {}
    for name, item in document["parameters"].items():
        pictures.setdefault(_described(item), []).append(name)
    for description, names in pictures.items():
        item = document["parameters"][names[0]]
        yield ""
        yield f"{description}, on ranks {ranges(item['ranks'])}"
        if not item.get("unnamed_slices"):
            yield from ("  " + line for line in item["picture"])
        for name in names:
            item = document["parameters"][name]
            known = [item.get("dtype"), item.get("full_shape")]
            facts = [str(fact) for fact in known if fact is not None]
            yield "  " + " ".join([visible(name), *facts])


def _described(item: dict[str, Any]) -> str:
    if item.get("unnamed_slices"):
        return "slices that the strategy does not name"
    parts = [f"device matrix {item['device_matrix']}, tensor map {item['tensor_map']}"]
    options = {"optimizer shards": "optimizer_shard", "fields": "field_size", "rows": "split_sizes"}
    parts += [f"{title} {item[key]}" for title, key in options.items() if item[key]]
    if len(item["stages"]) > 1 or item["stages"] != [0]:
        parts.append(f"stages {item['stages']}")
    return ", ".join(parts)


def _table(titles: tuple[str, ...], rows: list[dict[str, Any]]) -> Table:
    table = Table(box=None, pad_edge=False)
    for title in titles:
        table.add_column(title)
    for row in rows:
        table.add_row(*(visible(str(row[title])) for title in titles))
    return table


_PRINTERS: dict[str, Callable[[dict[str, Any]], Iterator[Table | str]]] = {
    "rank table": _print_rank_table,
    "strategy": _print_layouts,
    "checkpoint": _print_checkpoint,
    "sliced checkpoint": _print_layouts,
}
