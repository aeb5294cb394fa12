#!/usr/bin/env python3
"""What knowing costs, before a byte is copied: the index of a file, and the plan of one rank.

A plan grows with the parts that its rank touches, not with the ranks that saved or will load.
"""

from __future__ import annotations

import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np

ROOT = Path(__file__).parents[1]
sys.path.insert(0, str(ROOT))

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

SHAPE = (8192, 8192)


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


def main() -> None:
    """Print a table."""
    with tempfile.TemporaryDirectory() as folder:
        for suffix in ("ckpt", "safetensors"):
            path = Path(folder, f"net.{suffix}")
            names = [f"layers.{number}.weight" for number in range(1000)]
            write_checkpoint(path, {name: np.zeros((8, 8), np.float32) for name in names})
            index_s = best(lambda: read_index(path), rounds=20)
            print(f"index of 1,000 parameters, .{suffix:12}{index_s * 1000:8.1f} ms")
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
