"""The LeNet example evaluates to what MindSpore's own Model.eval says, on any number of ranks."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import mindspore
import numpy as np
from mindspore.train import Model

import launcher
from examples.lenet.data import create_dataset
from examples.lenet.network import LeNet5, make_loss, make_metrics
from workers.protocol import Expected, Message

ROOT = Path(__file__).parents[2]
JOB = ROOT / "examples" / "lenet" / "job.yaml"


def launch(*arguments: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "launcher", str(JOB), "--device", "cpu", *arguments]
    return subprocess.run(command, capture_output=True, text=True, timeout=110, cwd=ROOT)


def test_one_device_and_three_simulated_ranks_evaluate_as_mindspore_does(tmp_path: Path) -> None:
    network = LeNet5()
    mindspore.load_checkpoint(str(JOB.with_name("lenet.ckpt")), network)
    metrics = make_metrics() | {"loss": mindspore.train.Loss()}
    model = Model(network, make_loss(), metrics=metrics)
    expected = model.eval(create_dataset(32), dataset_sink_mode=False)
    assert expected["Accuracy"] > 0.95

    named = f"--metrics={JOB.with_name('network.py')}:make_metrics,loss"
    one = launch("--ranks=1", named, f"--output={tmp_path / 'one'}")
    assert one.returncode == 0, one.stderr
    assert f"metrics      {expected}" in one.stdout
    messages: list[Message] = []
    values = {"metrics": named.removeprefix("--metrics="), "output": str(tmp_path / "three")}
    job = launcher.load_job(JOB, ranks=3, device="cpu", **values)
    assert launcher.run(job, messages.append).metrics == expected
    assert Expected(0, 12) in messages  # so that the time that is left can be told
    summary = json.loads((tmp_path / "three" / "summary.json").read_text())
    assert (summary["metrics"], summary["batches"]) == (expected, 12)
    for name in ("predictions.npy", "labels.npy"):
        one_rank, three_ranks = (np.load(tmp_path / run / name) for run in ("one", "three"))
        assert len(one_rank) == 360
        np.testing.assert_array_equal(one_rank, three_ranks)
