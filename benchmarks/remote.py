#!/usr/bin/env python3
"""Ranks load their slices from a web server: byte ranges beside whole files, in bytes and seconds.

8 column slices of 64 MiB of weights, each twice, over device matrix [2, 4]; 8 ranks want rows. The
server answers after 20 ms and sends 200 MB/s in all. A host has all 8 ranks, or 2 of them.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import multiprocessing
import sys
import tempfile
import time
import urllib.request
from collections.abc import Callable
from dataclasses import dataclass
from multiprocessing.connection import Connection
from pathlib import Path

import numpy as np

ROOT = Path(__file__).parents[1]
sys.path.insert(0, str(ROOT))

from workers.resharding.checkpoint import open_checkpoint  # noqa: E402
from workers.resharding.checkpoint_file import write_checkpoint  # noqa: E402
from workers.resharding.execute import execute  # noqa: E402
from workers.resharding.layout import Layout  # noqa: E402
from workers.resharding.plan import plan_rank  # noqa: E402
from workers.resharding.remote.cache import Cache  # noqa: E402
from workers.resharding.strategy_file import write_strategy_file  # noqa: E402

TENSORS, ROWS, COLUMNS, RANKS = 8, 1024, 2048, 8
SOURCE, TARGET = Layout((2, 4), ((), (1,))), Layout((RANKS,), ((0,), ()))
NAMES = [f"w{number}" for number in range(TENSORS)]
FILE = "net-1_1.ckpt"
LATENCY_S, RATE = 0.02, 200e6  # of the server; bytes per second
MB = 1e6


@dataclass(frozen=True)
class Weight:
    """What a rank wants."""

    layout: Layout = TARGET
    full_shape: tuple[int, ...] = (ROWS, COLUMNS)
    dtype: str = "Float32"


def make_files(folder: Path) -> int:
    """Write the slices, and return how many bytes they are."""
    for rank in range(RANKS):
        part = np.random.default_rng(rank % 4).random((ROWS, COLUMNS // 4), np.float32)
        write_checkpoint(folder / f"rank_{rank}" / FILE, {name: part for name in NAMES})
    write_strategy_file(folder / "strategy.ckpt", {name: SOURCE for name in NAMES})
    return sum(file.stat().st_size for file in folder.rglob("*.ckpt"))


def serve(folder: Path, parent: Connection) -> None:
    """Serve a folder at the given pace; tell the parent the address, and how much was sent."""
    from aiohttp import web

    sent = 0
    line = asyncio.Lock()

    async def answer(request: web.Request) -> web.StreamResponse:
        nonlocal sent
        if request.path == "/sent":
            told, sent = sent, 0
            return web.Response(text=str(told))
        await asyncio.sleep(LATENCY_S)
        path = folder / request.match_info["name"]
        if not path.is_file():
            return web.Response(status=404)
        status = path.stat()
        headers = {"ETag": f'"{status.st_mtime_ns:x}"', "Accept-Ranges": "bytes"}
        start, stop = 0, status.st_size
        if (span := request.http_range).start is not None:
            start, stop = span.start, min(span.stop or stop, stop)
            headers["Content-Range"] = f"bytes {start}-{stop - 1}/{status.st_size}"
        headers["Content-Length"] = str(stop - start)
        partial = "Content-Range" in headers
        response = web.StreamResponse(status=206 if partial else 200, headers=headers)
        await response.prepare(request)
        with path.open("rb") as file:
            file.seek(start)
            while start < stop and request.method == "GET":
                content = file.read(min(1 << 18, stop - start))
                async with line:
                    await asyncio.sleep(len(content) / RATE)
                await response.write(content)
                start, sent = start + len(content), sent + len(content)
        return response

    async def run() -> None:
        app = web.Application()
        app.router.add_get("/{name:.*}", answer)
        runner = web.AppRunner(app)
        await runner.setup()
        await web.TCPSite(runner, "127.0.0.1", 0).start()
        parent.send("http://{}:{}".format(*runner.addresses[0]))
        await asyncio.Event().wait()

    asyncio.run(run())


def ranges(url: str, folder: Path, rank: int) -> None:
    """Load the slices of a rank as the launcher does."""
    cache = Cache(folder / "cache", 1 << 40)
    pattern = f"{url}/rank_{{rank}}/{FILE}"
    load(lambda: open_checkpoint(pattern, f"{url}/strategy.ckpt", None, cache), rank)


def each_whole(url: str, folder: Path, rank: int) -> None:
    """Download every file, as each rank of a script does that has no file system in common."""
    download(url, folder / str(rank))
    from_files(url, folder / str(rank), rank)


def from_files(_: str, folder: Path, rank: int) -> None:
    """Load the slices of a rank from files that are here."""
    load(lambda: open_checkpoint(str(folder), folder / "strategy.ckpt"), rank)


def load(open_it: Callable, rank: int) -> None:
    execute(plan_rank(open_it(), {name: Weight() for name in NAMES}, rank))


def download(url: str, folder: Path) -> None:
    """Download all files."""
    for name in ("strategy.ckpt", *(f"rank_{rank}/{FILE}" for rank in range(RANKS))):
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        urllib.request.urlretrieve(f"{url}/{name}", folder / name)


def main() -> None:
    """Run every way in turn, and print a table, or JSON."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--json", action="store_true")
    as_json = parser.parse_args().json
    context = multiprocessing.get_context("spawn")
    results: dict[str, dict[str, float]] = {}
    with tempfile.TemporaryDirectory() as temporary:
        served = Path(temporary, "served")
        total = make_files(served)
        here, there = context.Pipe()
        server = context.Process(target=serve, args=(served, there), daemon=True)
        server.start()
        url = here.recv()

        def measure(name: str, work: Callable[[], object]) -> None:
            began_s = time.perf_counter()
            work()
            seconds = time.perf_counter() - began_s
            sent = int(urllib.request.urlopen(f"{url}/sent").read())
            results[name] = {"bytes": sent, "share": sent / total, "seconds": seconds}

        for ranks in (8, 2):
            with context.Pool(ranks) as pool:
                folders = Path(temporary, f"a{ranks}"), Path(temporary, f"b{ranks}")
                pool.map(len, [()] * ranks)  # what is imported is not counted

                def all_ranks(way: Callable, folder: Path) -> None:
                    arguments = [(url, folder, rank) for rank in range(ranks)]
                    pool.starmap(way, arguments, chunksize=1)

                title = f"{ranks} ranks, "
                measure(title + "byte ranges", lambda: all_ranks(ranges, folders[0]))
                measure(title + "again, from the cache", lambda: all_ranks(ranges, folders[0]))
                measure(title + "each fetches all files", lambda: all_ranks(each_whole, folders[1]))

                def once() -> None:
                    download(url, folders[1] / "once")
                    all_ranks(from_files, folders[1] / "once")

                measure(title + "all files once, then load", once)
        server.kill()
    if as_json:
        print(json.dumps({"files": total, "ways": results}, indent=2))
        return
    print(f"{total / MB:.0f} MB of files")
    for name, found in results.items():
        print(
            f"{name:<34} {found['bytes'] / MB:8.1f} MB  {100 * found['share']:6.1f} %"
            f"  {found['seconds']:6.2f} s"
        )


if __name__ == "__main__":
    main()
