#!/usr/bin/env python3
"""What knowing costs, before a byte is copied: the index of a file, and the plan of one rank.

A plan grows with the parts that its rank touches, not with the ranks that saved or will load. A
rank opens its files once: that is measured in new processes, without what they import.
"""

from __future__ import annotations

import argparse
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np

ROOT = Path(__file__).parents[1]
sys.path.insert(0, str(ROOT))

from workers.resharding.checkpoint import open_checkpoint  # noqa: E402
from workers.resharding.checkpoint_file import read_index, write_checkpoint  # noqa: E402
from workers.resharding.index import (  # noqa: E402
    CheckpointIndex,
    Chunk,
    FileIdentity,
    SavedTensor,
)
from workers.resharding.layout import Layout  # noqa: E402
from workers.resharding.plan import LoadPlan, plan_rank  # noqa: E402
from workers.resharding.saved import SavedParameter, SlicedCheckpoint  # noqa: E402
from workers.resharding.strategy_file import write_strategy_file  # noqa: E402

SHAPE = (8192, 8192)
RANKS, NAMES = 8, [f"w{number}" for number in range(8)]  # of the files that are opened
OPENED = 25  # times


@dataclass(frozen=True)
class Weight:
    """What the rank wants of a parameter."""

    layout: Layout
    full_shape: tuple[int, ...] = SHAPE
    dtype: str = "Float32"


def layouts(ranks: int) -> list[Layout]:
    """Return what a large model has: columns, rows, and whole biases, in replica groups of 8."""
    matrix = (ranks // 8, 8)
    return [
        Layout(matrix, ((), (1,))),
        Layout(matrix, ((1,), ())),
        Layout(matrix, ((), ())),
        Layout(matrix, ((1,), ()), optimizer_shard=8),
    ]


def checkpoint(parameters: int, ranks: int, more_rows: int = 0) -> SlicedCheckpoint:
    """Return what ``open_checkpoint`` would, without any file.

    Args:
        more_rows: that each parameter has than the one before, so that no two are alike.
    """
    tensors, saved = {}, {}
    for number in range(parameters):
        layout = layouts(ranks)[number % 4]
        shape = (SHAPE[0] + number * more_rows, SHAPE[1])
        dims = layout.stored_shape(0, shape)
        name = f"layers.{number}.weight"
        tensors[name] = SavedTensor("Float32", dims, (Chunk(number, 4 * dims[0] * dims[1]),))
        saved[name] = SavedParameter(layout, shape, "Float32", layout.ranks)
    identity = FileIdentity(0, 0, 0, 0)
    files = {
        rank: CheckpointIndex(Path(f"rank_{rank}"), identity, tensors) for rank in range(ranks)
    }
    return SlicedCheckpoint(files, saved)


def best(work: Callable[[], object], rounds: int = 5) -> float:
    """Return the seconds of the fastest of some rounds."""
    seconds = []
    for _ in range(rounds):
        started_s = time.perf_counter()
        work()
        seconds.append(time.perf_counter() - started_s)
    return min(seconds)


def make_files(folder: Path) -> None:
    """Write slices of columns, in two replica groups."""
    for rank in range(RANKS):
        part = np.full((64, 256), rank % 4, np.float32)
        write_checkpoint(folder / f"rank_{rank}" / "net-1_1.ckpt", {name: part for name in NAMES})
    layout = Layout((2, 4), ((), (1,)))
    write_strategy_file(folder / "source.ckpt", {name: layout for name in NAMES})


def open_and_plan(folder: Path) -> float:
    """Return the seconds of CPU from the folder to the plan of rank 0."""
    wanted = {name: Weight(Layout((RANKS,), ((0,), ())), (64, 1024)) for name in NAMES}
    started_s = time.process_time()
    plan_rank(open_checkpoint(str(folder), folder / "source.ckpt"), wanted, 0)
    return time.process_time() - started_s


def opened() -> float:
    """Return the median of ``open_and_plan`` in processes of their own."""
    with tempfile.TemporaryDirectory() as folder:
        make_files(Path(folder))
        command = [sys.executable, __file__, "--open", folder]
        runs = [subprocess.run(command, capture_output=True, check=True) for _ in range(OPENED)]
    return statistics.median(float(run.stdout) for run in runs)


def main() -> None:
    """Print a table, or the figure of one process."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--open", type=Path, help=argparse.SUPPRESS)
    if (folder := parser.parse_args().open) is not None:
        print(open_and_plan(folder))
        return
    print(f"opening {RANKS} files of {len(NAMES)} slices, and a plan {opened() * 1000:9.1f} ms")
    print_indices()
    print_plans()


def print_indices() -> None:
    """Print what the index of a file costs, in each format."""
    with tempfile.TemporaryDirectory() as folder:
        for suffix in ("ckpt", "safetensors"):
            path = Path(folder, f"net.{suffix}")
            names = [f"layers.{number}.weight" for number in range(1000)]
            write_checkpoint(path, {name: np.zeros((8, 8), np.float32) for name in names})
            index_s = best(lambda: read_index(path), rounds=20)
            print(f"index of 1,000 parameters, .{suffix:12}{index_s * 1000:8.1f} ms")


def print_plans() -> None:
    """Print what plans cost, of networks with kinds of parameters and without."""
    print(f"{'parameters':>10} {'from':>6} {'to':>6} {'reads':>8} {'seconds':>9} {'us/read':>8}")
    for parameters, source, target, more_rows in (
        (1_000, 1024, 512, 0),
        (10_000, 64, 32, 0),
        (10_000, 1024, 512, 0),
        (10_000, 1024, 512, 64),
        (10_000, 4096, 2048, 0),
        (20_000, 1024, 512, 0),
    ):
        saved = checkpoint(parameters, source, more_rows)
        kinds = layouts(target)[:3] + layouts(target)[1:2]
        wanted = {
            name: Weight(kinds[number % 4], parameter.full_shape)
            for number, (name, parameter) in enumerate(saved.parameters.items())
        }
        plans: list[LoadPlan] = []
        plan_s = best(lambda: plans.append(plan_rank(saved, wanted, target // 2)), rounds=3)
        reads = sum(len(part.reads) for part in plans[0].slices)
        print(
            f"{parameters:10,} {source:6,} {target:6,} {reads:8,} {plan_s:9.3f}"
            f" {plan_s / reads * 1e6:8.1f}{'  all shapes different' if more_rows else ''}"
        )


if __name__ == "__main__":
    main()
