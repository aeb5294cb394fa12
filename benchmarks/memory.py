#!/usr/bin/env python3
"""The memory of a rank: 8 simulated ranks predict with 4 GiB of weights, in slices of 512 MiB.

The slices are made on the fly, as files with holes. Quoted is the peak of a rank (VmHWM) beyond
an interpreter with MindSpore imported, its slices and its activations.
"""

from __future__ import annotations

import json
import os
import struct
import subprocess
import sys
import tempfile
from pathlib import Path

RANKS, LAYERS, WIDTH, ROWS = 8, 16, 8192, 64
MIB = 1 << 20
NETWORK = f"""
import mindspore as ms
import numpy as np
from mindspore import Parameter, nn, ops
from mindspore.common.initializer import initializer

class Layer(nn.Cell):
    def __init__(self, column):
        super().__init__()
        self.weight = Parameter(initializer("zeros", ({WIDTH}, {WIDTH})), name="weight")
        self.matmul = ops.MatMul().shard(((1, 1), (1, 8)) if column else ((1, 8), (8, 1)))

    def construct(self, x):
        return self.matmul(x, self.weight) + 1

class Net(nn.Cell):
    def __init__(self):
        super().__init__()
        self.layers = nn.CellList([Layer(i % 2 == 0) for i in range({LAYERS})])

    def construct(self, x):
        for layer in self.layers:
            x = layer(x)
        return x

def make_input():
    return ms.Tensor(np.ones(({ROWS}, {WIDTH}), np.float32))
"""
BASELINE = """
import mindspore
from pathlib import Path
status = Path("/proc/self/status").read_text()
print(next(line.split()[1] for line in status.splitlines() if line.startswith("VmHWM")))
"""


def write_slices(folder: Path) -> None:
    """Write a strategy file and the slices of all ranks; what no header fills is a hole."""
    sys.path.insert(0, str(Path(__file__).parents[1]))
    from workers.resharding.layout import Layout
    from workers.resharding.strategy_file import write_strategy_file

    columns, rows = (WIDTH, WIDTH // RANKS), (WIDTH // RANKS, WIDTH)
    shapes = [columns if i % 2 == 0 else rows for i in range(LAYERS)]
    axes = [((), (0,)) if i % 2 == 0 else ((0,), ()) for i in range(LAYERS)]
    names = [f"layers.{i}.weight" for i in range(LAYERS)]
    layouts = {name: Layout((RANKS,), split) for name, split in zip(names, axes, strict=True)}
    write_strategy_file(folder / "strategy.ckpt", layouts)
    nbytes = WIDTH * WIDTH // RANKS * 4
    header = json.dumps(
        {
            name: {"dtype": "F32", "shape": shape, "data_offsets": [i * nbytes, (i + 1) * nbytes]}
            for i, (name, shape) in enumerate(zip(names, shapes, strict=True))
        }
    ).encode()
    for rank in range(RANKS):
        path = folder / f"rank_{rank}" / "net-1_1.safetensors"
        path.parent.mkdir()
        with path.open("wb") as file:
            file.write(struct.pack("<Q", len(header)) + header)
            file.truncate(8 + len(header) + LAYERS * nbytes)


def baseline() -> int:
    """Return the peak memory of an interpreter that imports MindSpore and does nothing."""
    command = [sys.executable, "-c", BASELINE]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    return int(done.stdout.split()[-1]) * 1024


def main() -> None:
    """Run the job and print what its ranks took."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        (folder / "net.py").write_text(NETWORK)
        write_slices(folder)
        command = [sys.executable, "-m", "launcher", "--ranks", str(RANKS), "--device", "cpu"]
        command += ["--network", f"{folder}/net.py:Net", "--json", "--output", f"{folder}/out"]
        command += ["--predict-data", f"{folder}/net.py:make_input"]
        command += ["--checkpoint", f"{folder}/rank_{{rank}}/net-1_1.safetensors"]
        command += ["--strategy", f"{folder}/strategy.ckpt"]
        root = Path(__file__).parents[1]
        done = subprocess.run(command, capture_output=True, text=True, cwd=root, env=os.environ)
        if done.returncode != 0:
            sys.exit(done.stderr)
        ranks = json.loads(done.stdout)["ranks"]
    empty = baseline()
    activations = 3 * ROWS * WIDTH * 4  # an operator's input, its result, and what is gathered
    peaks = [rank["peak_memory_bytes"] for rank in ranks]
    held = ranks[0]["bytes_held"]
    beyond = max(peaks) - held - activations - empty
    print(
        f"weights {RANKS * held / MIB:.0f} MiB on {RANKS} ranks: a rank holds"
        f" {held / MIB:.0f} MiB and peaks at {max(peaks) / MIB:.0f} MiB; an interpreter with"
        f" MindSpore peaks at {empty / MIB:.0f} MiB, activations take {activations / MIB:.0f} MiB,"
        f" the rest is {beyond / MIB:.0f} MiB (goal: 150)"
    )


if __name__ == "__main__":
    main()
