#!/usr/bin/env python3
"""One rank of 8 loads its row slices from 8 column slices: this core beside others, and the limit.

1 GiB of float32 weights over device matrix [2, 4]. Every way runs in processes of its own, in
turn; what is imported and what the page cache learns the first time is not counted. The limit is
np.copyto of the same bytes with the same strides from warm memory into memory as fresh.
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
from pathlib import Path
from typing import Any

import numpy as np

ROOT = Path(__file__).parents[1]
sys.path.insert(0, str(ROOT))

from workers.resharding.checkpoint import open_checkpoint  # noqa: E402
from workers.resharding.checkpoint_file import write_checkpoint  # noqa: E402
from workers.resharding.execute import empty, execute  # noqa: E402
from workers.resharding.layout import Layout  # noqa: E402
from workers.resharding.plan import plan_rank  # noqa: E402
from workers.resharding.strategy_file import write_strategy_file  # noqa: E402

TENSORS, ROWS, COLUMNS, RANKS = 8, 4096, 8192, 8
SOURCE, TARGET = Layout((2, 4), ((), (1,))), Layout((RANKS,), ((0,), ()))
NAMES = [f"w{number}" for number in range(TENSORS)]
SLICE_NBYTES = TENSORS * ROWS * COLUMNS * 4 // RANKS
ROUNDS = 5


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


def this_core(folder: Path, rank: int = 0) -> int:
    """Open, plan and copy; return the bytes of files that were copied."""
    checkpoint = open_checkpoint(str(folder), folder / "source.ckpt")
    plan = plan_rank(checkpoint, {name: Weight() for name in NAMES}, rank)
    arrays = execute(plan)
    check(arrays, rank)
    return plan.bytes_to_read


def limit(_: Path, ranks: int = 1, threads: int = 1) -> int:
    """Copy what one rank needs, from memory."""
    rows = ROWS // RANKS
    sources = [np.ones((rows, COLUMNS // 4), np.float32) for _ in range(4 * TENSORS)]

    def copy(share: int) -> None:
        for _ in range(share):
            for tensor in range(TENSORS):
                target = empty((rows, COLUMNS), np.dtype(np.float32))
                for part in range(4):
                    columns = slice(part * COLUMNS // 4, (part + 1) * COLUMNS // 4)
                    np.copyto(target[:, columns], sources[4 * tensor + part])
                kept.append(target)

    kept: list[Any] = []
    workers = [threading.Thread(target=copy, args=(ranks // threads,)) for _ in range(threads)]
    CLOCK.start()
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()
    CLOCK.stop()
    return ranks * SLICE_NBYTES


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


def timed_core(folder: Path) -> int:
    """Load with this core, and count from opening the files to the last byte."""
    CLOCK.start()
    nbytes = this_core(folder)
    CLOCK.stop()
    return nbytes


WAYS: dict[str, Callable[[Path], int]] = {
    "limit": limit,
    "this core": timed_core,
    "safetensors get_slice": safetensors_get_slice,
    "MindSpore transform_checkpoint_by_rank": transform_checkpoint_by_rank,
    "MindSpore load_distributed_checkpoint": load_distributed_checkpoint,
}
ROUNDS_OF = {"limit": 9, "this core": 9}


def all_at_once(folder: Path) -> dict[str, float]:
    """Return what eight ranks take at once, and what two threads take to copy the same."""
    context = multiprocessing.get_context("fork")
    gate = context.Barrier(RANKS + 1)

    def rank_main(rank: int) -> None:
        gate.wait()
        this_core(folder, rank)

    ranks = [context.Process(target=rank_main, args=(rank,)) for rank in range(RANKS)]
    for rank in ranks:
        rank.start()
    gate.wait()
    started_s = time.perf_counter()
    for rank in ranks:
        rank.join()
    seconds = time.perf_counter() - started_s
    if any(rank.exitcode for rank in ranks):
        sys.exit("a rank failed")
    limit(folder, ranks=RANKS, threads=2)
    return {"seconds": seconds, "limit_seconds": CLOCK.seconds}


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
    at_once = [run_way("all at once", folder) for _ in range(ROUNDS)]
    report: dict[str, Any] = {}
    for name, results in runs.items():
        report[name] = {
            key: statistics.median(result[key] for result in results) for key in results[0]
        }
        for key in ("seconds", "cpu_seconds"):  # the best is least disturbed by other processes
            report[name][f"best_{key}"] = min(result[key] for result in results)
    report["eight ranks at once"] = {
        "seconds": statistics.median(run["seconds"] for run in at_once),
        "limit_seconds": statistics.median(run["limit_seconds"] for run in at_once),
    }
    return report


def show(report: Mapping[str, Any]) -> None:
    """Print a line for each way."""
    bound = report["limit"]["best_seconds"]
    titles = f"{'median':>9}{'best':>9}{'CPU':>9}{'GB/s':>7}{'limit':>7}{'read':>8}{'extra':>8}"
    print(f"{'':40}{titles}")
    for name in WAYS:
        way = report[name]
        print(
            f"{name:40}{way['seconds']:7.3f} s{way['best_seconds']:7.3f} s"
            f"{way['best_cpu_seconds']:7.3f} s"
            f"{SLICE_NBYTES / way['best_seconds'] / 1e9:7.2f}{bound / way['best_seconds']:7.0%}"
            f"{way['bytes_read'] / SLICE_NBYTES:7.2f}x{way['extra_nbytes'] / 1e6:5.0f} MB"
        )
    eight = report["eight ranks at once"]
    ratio = eight["seconds"] / eight["limit_seconds"]
    print(
        f"eight ranks at once {eight['seconds']:.3f} s, two threads {eight['limit_seconds']:.3f} s:"
        f" {ratio:.2f} times"
    )


def main() -> None:
    """Measure everything, or one way in this process."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--way", help=argparse.SUPPRESS)
    parser.add_argument("--folder", type=Path, help="keep the files here")
    parser.add_argument("--output", type=Path, default=ROOT / "runs" / "bench-resharding.json")
    flags = parser.parse_args()
    if flags.way == "all at once":
        print(json.dumps(all_at_once(flags.folder)))
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
