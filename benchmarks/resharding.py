#!/usr/bin/env python3
"""One rank of 8 loads its row slices from 8 column slices: this core beside others, and the limit.

1 GiB of float32 weights over device matrix [2, 4]. Every way runs in processes of its own, in
turn, and is compared with the limit of its own round: other processes disturb both alike. What is
imported and what the page cache learns the first time is not counted. The limit is np.copyto of
the same bytes with the same strides from warm memory into new memory, as np.empty gives it.
"""

from __future__ import annotations

import argparse
import json
import multiprocessing
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

ROOT = Path(__file__).parents[1]
sys.path.insert(0, str(ROOT))

from workers.resharding.checkpoint import open_checkpoint  # noqa: E402
from workers.resharding.checkpoint_file import write_checkpoint  # noqa: E402
from workers.resharding.execute import execute  # noqa: E402
from workers.resharding.layout import Layout  # noqa: E402
from workers.resharding.plan import plan_rank  # noqa: E402
from workers.resharding.strategy_file import write_strategy_file  # noqa: E402

TENSORS, ROWS, COLUMNS, RANKS = 8, 4096, 8192, 8
SOURCE, TARGET = Layout((2, 4), ((), (1,))), Layout((RANKS,), ((0,), ()))
NAMES = [f"w{number}" for number in range(TENSORS)]
SLICE_NBYTES = TENSORS * ROWS * COLUMNS * 4 // RANKS
ROUNDS = 7  # of all ranks at once


@dataclass(frozen=True)
class Weight:
    """What the rank wants."""

    layout: Layout = TARGET
    full_shape: tuple[int, ...] = (ROWS, COLUMNS)
    dtype: str = "Float32"


def make_files(folder: Path) -> None:
    """Write the slices; the first column of each row tells its number."""
    for rank in range(4):
        part = np.random.default_rng(rank).random((ROWS, COLUMNS // 4), np.float32)
        part[:, 0] = np.arange(ROWS)
        tensors = {name: part for name in NAMES}
        for replica in (rank, rank + 4):
            write_checkpoint(folder / f"rank_{replica}" / "net-1_1.ckpt", tensors)
        write_checkpoint(folder / f"safe_{rank}" / "net-1_1.safetensors", tensors)
    write_strategy_file(folder / "source.ckpt", {name: SOURCE for name in NAMES})
    write_strategy_file(folder / "target.ckpt", {name: TARGET for name in NAMES})


def this_core(folder: Path, threads: int = 1) -> int:
    """Count from opening the files to the last byte."""
    CLOCK.start()
    nbytes, arrays = load(folder, 0, threads)
    CLOCK.stop()
    check(arrays, 0)
    return nbytes


def load(folder: Path, rank: int, threads: int = 1) -> tuple[int, Mapping[str, Any]]:
    """Open, plan and copy; return the bytes of files that were copied, and the slices."""
    checkpoint = open_checkpoint(str(folder), folder / "source.ckpt")
    plan = plan_rank(checkpoint, {name: Weight() for name in NAMES}, rank)
    return plan.bytes_to_read, execute(plan, threads=threads)


def limit(_: Path) -> int:
    """Copy what one rank needs, from memory."""
    sources = make_sources()
    CLOCK.start()
    kept = copy(sources)
    CLOCK.stop()
    return sum(target.nbytes for target in kept)


def make_sources() -> list[Any]:
    """Return what one rank reads, in memory that is warm."""
    return [np.ones((ROWS // RANKS, COLUMNS // 4), np.float32) for _ in range(4 * TENSORS)]


def copy(sources: list[Any]) -> list[Any]:
    """Copy columns side by side into new arrays."""
    kept = []
    for tensor in range(TENSORS):
        target = np.empty((ROWS // RANKS, COLUMNS), np.float32)
        for part in range(4):
            columns = slice(part * COLUMNS // 4, (part + 1) * COLUMNS // 4)
            np.copyto(target[:, columns], sources[4 * tensor + part])
        kept.append(target)
    return kept


def safetensors_get_slice(folder: Path) -> int:
    """Read slices of the same tensors with the safetensors library."""
    from safetensors import safe_open

    rows = ROWS // RANKS
    CLOCK.start()
    arrays = {name: np.empty((rows, COLUMNS), np.float32) for name in NAMES}
    for part in range(4):
        columns = slice(part * COLUMNS // 4, (part + 1) * COLUMNS // 4)
        path = folder / f"safe_{part}" / "net-1_1.safetensors"
        with safe_open(path, framework="numpy") as file:
            for name in NAMES:
                arrays[name][:, columns] = file.get_slice(name)[0:rows]
    CLOCK.stop()
    check(arrays, 0)
    return SLICE_NBYTES


def load_distributed_checkpoint(folder: Path) -> int:
    """Let MindSpore load the slices of rank 0 into a network."""
    import mindspore as ms

    rows = ROWS // RANKS
    network = ms.nn.Cell()
    for name in NAMES:
        zeros = ms.Tensor(np.zeros((rows, COLUMNS), np.float32))
        network.insert_param_to_cell(name, ms.Parameter(zeros, name=name))
    files = [str(folder / f"rank_{rank}" / "net-1_1.ckpt") for rank in range(RANKS)]
    predict = {name: [[RANKS], [0, -1], [rows, COLUMNS], 0, True, ""] for name in NAMES}
    ms.set_auto_parallel_context(strategy_ckpt_load_file=str(folder / "source.ckpt"))
    CLOCK.start()
    ms.load_distributed_checkpoint(network, files, predict)
    CLOCK.stop()
    check({p.name: p.asnumpy() for p in network.get_parameters()}, 0)
    return 2 * TENSORS * ROWS * COLUMNS * 4


def transform_checkpoint_by_rank(folder: Path) -> int:
    """Let MindSpore write the slices of rank 0 into a file."""
    import mindspore as ms

    files = {rank: str(folder / f"rank_{rank}" / "net-1_1.ckpt") for rank in range(RANKS)}
    strategies = str(folder / "source.ckpt"), str(folder / "target.ckpt")
    needed = ms.rank_list_for_transform(0, *strategies)
    out = folder / "by_rank" / "rank_0.ckpt"
    out.parent.mkdir(exist_ok=True)
    out.unlink(missing_ok=True)
    CLOCK.start()
    ms.transform_checkpoint_by_rank(0, {r: files[r] for r in needed}, str(out), *strategies)
    CLOCK.stop()
    loaded = ms.load_checkpoint(str(out))
    check({name: parameter.asnumpy() for name, parameter in loaded.items()}, 0)
    return len(needed) * TENSORS * ROWS * COLUMNS


def check(arrays: Mapping[str, Any], rank: int) -> None:
    """Stop if a way gives a wrong result: the first column of each part tells the row."""
    rows = ROWS // RANKS
    for name in NAMES:
        for part in range(4):
            first = arrays[name][:, part * COLUMNS // 4]
            if not np.array_equal(first, np.arange(rank * rows, (rank + 1) * rows)):
                sys.exit(f"{name} is wrong")


class Clock:
    """What a way takes, from start to stop, in seconds and in memory."""

    def start(self) -> None:
        Path("/proc/self/clear_refs").write_text("5")  # the peak is that of now
        self._before = status("VmRSS")
        self._started_cpu_s = time.process_time()
        self._started_s = time.perf_counter()

    def stop(self) -> None:
        self.seconds = time.perf_counter() - self._started_s
        self.cpu_seconds = time.process_time() - self._started_cpu_s
        self.extra_nbytes = status("VmHWM") - self._before - SLICE_NBYTES


CLOCK = Clock()


def status(key: str) -> int:
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) * 1024 for line in lines if line.startswith(key))


WAYS: dict[str, Callable[[Path], int]] = {
    "limit": limit,
    "this core": this_core,
    "this core, two threads": partial(this_core, threads=2),
    "safetensors get_slice": safetensors_get_slice,
    "MindSpore transform_checkpoint_by_rank": transform_checkpoint_by_rank,
    "MindSpore load_distributed_checkpoint": load_distributed_checkpoint,
}
ROUNDS_OF = {
    **{"limit": 15, "this core": 15, "this core, two threads": 15},
    "safetensors get_slice": 5,
}


def eight_ranks(folder: Path) -> dict[str, float]:
    """Return what eight processes take that each load the slices of one rank."""
    return at_once(RANKS, lambda rank: lambda: check(load(folder, rank)[1], rank))


def two_threads(_: Path) -> dict[str, float]:
    """Return what two threads take to copy as many bytes, from memory."""

    def prepare(_: int) -> Callable[[], None]:
        sources = [make_sources() for _ in range(RANKS)]
        halves = sources[: RANKS // 2], sources[RANKS // 2 :]
        kept: list[Any] = []

        def run() -> None:
            def work(half: list[Any]) -> None:
                kept.extend([copy(each) for each in half])

            threads = [threading.Thread(target=work, args=(half,)) for half in halves]
            for thread in threads:
                thread.start()
            for thread in threads:
                thread.join()

        return run

    return at_once(1, prepare)


def at_once(count: int, prepare: Callable[[int], Callable[[], None]]) -> dict[str, float]:
    """Fork processes, and count from when all are prepared until all have done their work.

    Their memory is still there then: its end is not counted.
    """
    context = multiprocessing.get_context("fork")
    ready, done = context.Barrier(count + 1), context.Barrier(count + 1)
    cpu_seconds = context.Array("d", count)

    def main(number: int) -> None:
        work = prepare(number)
        ready.wait()
        started_s = time.process_time()
        work()
        cpu_seconds[number] = time.process_time() - started_s
        done.wait()

    processes = [context.Process(target=main, args=(number,)) for number in range(count)]
    for process in processes:
        process.start()
    ready.wait()
    started_s = time.perf_counter()
    done.wait(timeout=60)
    seconds = time.perf_counter() - started_s
    for process in processes:
        process.join()
    return {"seconds": seconds, "cpu_seconds": sum(cpu_seconds)}


AT_ONCE: dict[str, Callable[[Path], dict[str, float]]] = {
    "eight ranks": eight_ranks,
    "two threads": two_threads,
}


def run_way(name: str, folder: Path) -> dict[str, Any]:
    """Run one way in a process of its own."""
    command = [sys.executable, __file__, "--way", name, "--folder", str(folder)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        sys.exit(f"{name} failed:\n{done.stderr[-3000:]}")
    result: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return result


def measure(folder: Path) -> dict[str, Any]:
    """Return the figures of all ways, measured in turn."""
    runs: dict[str, list[dict[str, Any]]] = {name: [] for name in WAYS}
    for number in range(max(ROUNDS_OF.values())):
        for name in WAYS:
            if number < ROUNDS_OF.get(name, 2):
                runs[name].append(run_way(name, folder))
    for _ in range(ROUNDS):
        for name in AT_ONCE:
            runs.setdefault(name, []).append(run_way(name, folder))
    report: dict[str, Any] = {}
    for name, results in runs.items():
        bounds = runs["two threads" if name in AT_ONCE else "limit"]
        report[name] = {
            key: statistics.median(result[key] for result in results) for key in results[0]
        }
        for key in ("seconds", "cpu_seconds"):
            ratios = (bound[key] / result[key] for bound, result in zip(bounds, results))
            report[name][f"limit_by_{key}"] = statistics.median(ratios)
            report[name][f"best_{key}"] = min(result[key] for result in results)
    return report


def show(report: Mapping[str, Any]) -> None:
    """Print a line for each way."""
    titles = "median", "best", "CPU", "GB/s", "of limit", "by CPU", "read", "extra"
    print(f"{'':40}" + "".join(f"{title:>10}" for title in titles))
    for name in WAYS:
        way = report[name]
        print(
            f"{name:40}{way['seconds']:8.3f} s{way['best_seconds']:8.3f} s"
            f"{way['cpu_seconds']:8.3f} s{SLICE_NBYTES / way['seconds'] / 1e9:10.2f}"
            f"{way['limit_by_seconds']:10.0%}{way['limit_by_cpu_seconds']:10.0%}"
            f"{way['bytes_read'] / SLICE_NBYTES:9.2f}x{way['extra_nbytes'] / 1e6:7.0f} MB"
        )
    for name in AT_ONCE:
        way = report[name]
        print(
            f"{name + ', all 8 slices':40}{way['seconds']:8.3f} s{way['best_seconds']:8.3f} s"
            f"{way['cpu_seconds']:8.3f} s{RANKS * SLICE_NBYTES / way['seconds'] / 1e9:10.2f}"
            f"{1 / way['limit_by_seconds']:9.2f}x{1 / way['limit_by_cpu_seconds']:9.2f}x"
        )


def main() -> None:
    """Measure everything, or one way in this process."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--way", help=argparse.SUPPRESS)
    parser.add_argument("--folder", type=Path, help="keep the files here")
    parser.add_argument("--output", type=Path, default=ROOT / "runs" / "bench-resharding.json")
    flags = parser.parse_args()
    if flags.way in AT_ONCE:
        print(json.dumps(AT_ONCE[flags.way](flags.folder)))
        return
    if flags.way:
        nbytes = WAYS[flags.way](flags.folder)
        figures = {"seconds": CLOCK.seconds, "cpu_seconds": CLOCK.cpu_seconds}
        figures |= {"bytes_read": nbytes, "extra_nbytes": CLOCK.extra_nbytes}
        print(json.dumps(figures))
        return
    with tempfile.TemporaryDirectory(dir=flags.folder) as folder:
        make_files(Path(folder))
        report = measure(Path(folder))
    show(report)
    flags.output.parent.mkdir(parents=True, exist_ok=True)
    flags.output.write_text(json.dumps(report, indent=2) + "\n")


if __name__ == "__main__":
    main()
