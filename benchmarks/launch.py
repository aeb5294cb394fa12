#!/usr/bin/env python3
"""From the command to the verified answer: this launcher beside msrun, in turn, 8 processes.

msrun's processes import MindSpore and predict with the whole tutorial network, each for itself:
less work than the launcher's ranks do, but the nearest thing that msrun can do without a device.
"""

from __future__ import annotations

import os
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

ROOT = Path(__file__).parents[1]
RUNS = 3
PREDICT = """
import mindspore as ms
import numpy as np
from mindspore import nn, ops
class Net(nn.Cell):
    def __init__(self):
        super().__init__()
        self.w = ms.Parameter(ms.Tensor(np.ones((96, 16), np.float32)), name="w")
    def construct(self, x):
        return ops.neg(ops.matmul(x, self.w))
print(Net()(ms.Tensor(np.ones((128, 96), np.float32))).shape)
"""


def seconds(command: list[str], folder: str) -> float:
    """Return how long a command takes; it must succeed."""
    beside = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    environment = os.environ | {"PATH": beside}  # msrun calls whatever "python" is
    started_s = time.monotonic()
    done = subprocess.run(
        command, cwd=folder, env=environment, capture_output=True, text=True, check=False
    )
    if done.returncode != 0:
        sys.exit(f"{command} failed:\n{done.stdout[-2000:]}{done.stderr[-2000:]}")
    return time.monotonic() - started_s


def main() -> None:
    """Print the medians and their ratio."""
    msrun = shutil.which("msrun", path=str(Path(sys.executable).parent))
    if msrun is None:
        sys.exit("msrun is not beside this Python; run `make bench`")
    ours, theirs = [], []
    with tempfile.TemporaryDirectory() as folder:
        Path(folder, "predict.py").write_text(PREDICT)
        job = str(ROOT / "examples" / "tutorial" / "job.yaml")
        launcher = [sys.executable, "-m", "launcher", job, "--ranks", "8", "--device", "cpu"]
        launcher += ["--output", f"{folder}/out"]
        other = [msrun, "--worker_num=8", "--local_worker_num=8", "--join=True", "predict.py"]
        for number in range(RUNS + 1):
            pair = seconds(launcher, str(ROOT)), seconds(other, folder)
            if number > 0:  # the first warms the page cache
                ours.append(pair[0])
                theirs.append(pair[1])
    a, b = statistics.median(ours), statistics.median(theirs)
    ratio = statistics.median(y / x for x, y in zip(ours, theirs, strict=True))
    print(f"launch: launcher {a:.1f} s, msrun {b:.1f} s, msrun/launcher {ratio:.1f} ({RUNS} pairs)")


if __name__ == "__main__":
    main()
