#!/usr/bin/env python3
"""A batch of a compute-bound transformer: 8 simulated ranks beside one MindSpore process, in turn.

Both use all cores of this machine. Quoted is the time between batches once the first is done,
and where a rank's time goes.
"""

from __future__ import annotations

import json
import os
import statistics
import subprocess
import sys
import tempfile
from dataclasses import replace
from pathlib import Path

HERE = Path(__file__).parent
sys.path.insert(0, str(HERE.parent))

from launcher.engines.choice import leading  # noqa: E402
from launcher.job_file import load_job  # noqa: E402
from launcher.outcome import Limits  # noqa: E402
from launcher.prepare import prepare  # noqa: E402
from launcher.runner import run_ranks  # noqa: E402

ROUNDS = int(os.environ.get("ROUNDS", "3"))
SINGLE = """
import sys, time
sys.path.insert(0, sys.argv[1])
import mindspore as ms
import transformer
ms.set_context(mode=ms.GRAPH_MODE)
network = transformer.Transformer(1, 1)
network.set_train(False)
batches = list(transformer.make_batches())
network(batches[0]).asnumpy()
started_s = time.monotonic()
for batch in batches[1:]:
    network(batch).asnumpy()
print((time.monotonic() - started_s) / (len(batches) - 1))
"""
WEIGHTS = """
import sys
sys.path.insert(0, sys.argv[1])
import mindspore as ms
import transformer
ms.save_checkpoint(transformer.Transformer(1, 1), sys.argv[2])
"""


def python(code: str, *arguments: str) -> str:
    """Run code in a process of its own and return what it printed."""
    command = [sys.executable, "-c", code, *arguments]
    env = {**os.environ, "GLOG_v": "3"}
    return subprocess.run(command, capture_output=True, text=True, check=True, env=env).stdout


def ranks(folder: str, batches: int) -> float:
    """Return the seconds that rank 0 spent in phase predict."""
    command = [sys.executable, "-m", "launcher", "--ranks", "8", "--device", "cpu", "--json"]
    command += ["--network", f"{HERE}/transformer.py:make_network"]
    command += ["--predict-data", f"{HERE}/transformer.py:make_batches"]
    command += ["--checkpoint", f"{folder}/whole.ckpt", "--output", f"{folder}/out"]
    env = {**os.environ, "BATCHES": str(batches)}
    done = subprocess.run(command, capture_output=True, text=True, cwd=HERE.parent, env=env)
    if done.returncode != 0:
        sys.exit(done.stderr)
    return float(json.loads(done.stdout)["ranks"][0]["phase_seconds"]["predict"])


def profile(folder: str) -> dict[str, float]:
    """Return the median seconds that rank 0 spends in a batch, by what it does."""
    flags = {
        "ranks": 8,
        "device": "cpu",
        "network": f"{HERE}/transformer.py:make_network",
        "predict_data": f"{HERE}/transformer.py:make_batches",
        "checkpoint": f"{folder}/whole.ckpt",
        "output": f"{folder}/timed",
    }
    job = load_job(None, flags)
    with leading(job, None, os.environ) as starter:
        prepared = prepare(job, None, starter)
        runtime = f"{HERE}/timed.py:TimedRuntime"
        specs = [replace(spec, device=runtime) for spec in prepared.placement.specs]
        limits = Limits(total_s=600, phase_s=600)
        prepared.folder.begin()
        outcome = run_ranks(specs, prepared.folder, limits, lambda _: None, starter)
    if outcome.exit_code != 0:
        sys.exit(str(outcome.cause))
    lines = prepared.folder.log(0).read_text().splitlines()
    batches = [json.loads(line) for line in lines if line.startswith('{"batch"')][1:]
    return {name: statistics.median(batch[name] for batch in batches) for name in batches[0]}


def main() -> None:
    """Print the medians and their ratio."""
    ours, theirs = [], []
    with tempfile.TemporaryDirectory() as folder:
        python(WEIGHTS, str(HERE), f"{folder}/whole.ckpt")
        for _ in range(ROUNDS):
            ours.append((ranks(folder, 11) - ranks(folder, 1)) / 10)
            theirs.append(float(python(SINGLE, str(HERE)).split()[-1]))
        spent = profile(folder)
    a, b = statistics.median(ours), statistics.median(theirs)
    ratio = statistics.median(x / y for x, y in zip(ours, theirs, strict=True))
    print(
        f"a batch: 8 simulated ranks {a:.2f} s, one process {b:.2f} s,"
        f" ranks/process {ratio:.2f} ({ROUNDS} rounds)"
    )
    whole = spent.pop("batch")
    shares = sorted(spent.items(), key=lambda item: -item[1])
    told = ", ".join(f"{name} {seconds / whole:.0%}" for name, seconds in shares)
    print(f"of a batch on rank 0: {told}")


if __name__ == "__main__":
    main()
