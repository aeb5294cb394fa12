#!/usr/bin/env python3
"""From the command to the answer, and from a death to the end: this launcher beside msrun.

Both start 8 processes, in turn. msrun's import MindSpore and predict with the whole tutorial
network, each for itself: less work than the launcher's ranks do, but the nearest thing that msrun
can do without a device.
"""

from __future__ import annotations

import json
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path

ROOT = Path(__file__).parents[1]
RUNS = 3
PREDICT = """
import os, signal, sys, time
import mindspore as ms
import numpy as np
from mindspore import nn, ops
class Net(nn.Cell):
    def __init__(self):
        super().__init__()
        self.w = ms.Parameter(ms.Tensor(np.ones((96, 16), np.float32)), name="w")
    def construct(self, x):
        return ops.neg(ops.matmul(x, self.w))
def make_input():
    return ms.Tensor(np.ones((128, 96), np.float32))
def die_on(rank):
    if str(rank) == "1":
        with open("died_at", "w") as file:
            file.write(str(time.time()))
        os.kill(os.getpid(), signal.SIGKILL)
def make_dying_input():
    die_on(ms.get_auto_parallel_context("global_rank"))
    return make_input()
if __name__ == "__main__":
    if "die" in sys.argv:
        die_on(os.environ["MS_NODE_ID"])
    print(Net()(make_input()).shape)
"""


@dataclass(frozen=True)
class Ended:
    """How a command ended, and when."""

    exit_code: int
    seconds: float
    begun_s: float  # after which it had started a process
    started_at: float  # seconds since 1970
    ended_at: float


def run(command: list[str], folder: str) -> Ended:
    """Run a command to its end."""
    beside = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    environment = os.environ | {"PATH": beside}  # msrun calls whatever "python" is
    environment["PYTHONPATH"] = str(ROOT)
    environment.pop("PYTHONDONTWRITEBYTECODE", None)  # users have it compiled, after the first run
    started_at, started_s = time.time(), time.monotonic()
    with open(Path(folder, "said"), "wb") as said:
        process = subprocess.Popen(command, cwd=folder, env=environment, stdout=said, stderr=said)
    children = Path(f"/proc/{process.pid}/task/{process.pid}/children")
    while not children.read_text() and process.poll() is None:
        time.sleep(0.002)
    begun_s = time.monotonic() - started_s
    process.wait()
    seconds = time.monotonic() - started_s
    return Ended(process.returncode, seconds, begun_s, started_at, time.time())


def verified_s(folder: str, started_at: float) -> float:
    """Return the seconds until the launcher had verified the first batch."""
    lines = Path(folder, "out", "events.jsonl").read_text().splitlines()
    times = [event["time"] for event in map(json.loads, lines) if event["event"] == "verified"]
    return datetime.fromisoformat(times[0]).timestamp() - started_at


def alternate(
    first: Callable[[str], Ended], second: Callable[[str], Ended], runs: int
) -> list[tuple[tuple[Ended, str], tuple[Ended, str]]]:
    """Return how two ways ended, each time in a folder of its own that is left to be looked at."""
    pairs = []
    for _ in range(runs):
        folders = tempfile.mkdtemp(), tempfile.mkdtemp()
        for folder in folders:
            Path(folder, "predict.py").write_text(PREDICT)
        ends = first(folders[0]), second(folders[1])
        pairs.append(((ends[0], folders[0]), (ends[1], folders[1])))
    return pairs


def main() -> None:
    """Print the medians and their ratios."""
    msrun = shutil.which("msrun", path=str(Path(sys.executable).parent))
    if msrun is None:
        sys.exit("msrun is not beside this Python; run `make bench`")
    launcher = [sys.executable, "-m", "launcher", "--device", "cpu", "--output", "out"]
    tutorial = [*launcher, str(ROOT / "examples" / "tutorial" / "job.yaml"), "--ranks", "8"]
    dying = [*launcher, "--ranks", "8", "--network", "predict.py:Net", "--allow-missing", "*"]
    dying += ["--predict-data", "predict.py:make_dying_input"]
    other = [msrun, "--worker_num=8", "--local_worker_num=8", "--join=True", "predict.py"]

    ours, theirs, ready, first = [], [], [], []
    pairs = alternate(lambda f: run(tutorial, f), lambda f: run(other, f), RUNS + 1)
    for (our, folder), (their, other_folder) in pairs:
        if our.exit_code or their.exit_code:
            sys.exit(f"a run failed; see {folder} and {other_folder}")
        ours.append(our.seconds)
        theirs.append(their.seconds)
        ready.append(our.begun_s)
        first.append(verified_s(folder, our.started_at))
        shutil.rmtree(folder)
        shutil.rmtree(other_folder)
    a, b, c, d = (statistics.median(each[1:]) for each in (ours, theirs, ready, first))
    ratio = statistics.median(y / x for x, y in list(zip(ours, theirs, strict=True))[1:])
    print(f"launch: launcher {a:.1f} s, msrun {b:.1f} s, msrun/launcher {ratio:.1f} ({RUNS} pairs)")
    print(
        f"launch: the process of which the ranks are forks starts after {c:.2f} s,"
        f" the first batch is verified after {d:.1f} s"
    )

    waits: dict[str, list[float]] = {"launcher": [], "msrun": []}
    codes: dict[str, set[int]] = {"launcher": set(), "msrun": set()}
    for pair in alternate(lambda f: run(dying, f), lambda f: run([*other, "die"], f), 2):
        for name, (end, folder) in zip(waits, pair, strict=True):
            waits[name].append(end.ended_at - float(Path(folder, "died_at").read_text()))
            codes[name].add(end.exit_code)
            shutil.rmtree(folder)
    told = (
        f"{name} {statistics.median(waits[name]):.2f} s (exit code {sorted(codes[name])})"
        for name in waits
    )
    print(f"from the SIGKILL of one of 8 processes to the end: {', '.join(told)}")


if __name__ == "__main__":
    main()
