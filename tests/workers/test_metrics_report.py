"""Delivered outputs come back as the batches that they were delivered in."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np

from workers.metrics_report import batches


def test_each_batch_has_its_own_rows_of_outputs_and_labels(tmp_path: Path) -> None:
    # Two batches, of 2 samples and of 1, with 2 tokens each: the scores have a row for each token.
    scores, labels = np.arange(6), np.arange(6).reshape(3, 2)
    np.save(tmp_path / "scores.npy", scores)
    np.save(tmp_path / "labels.npy", labels)
    found = batches(str(tmp_path / "scores.npy"), str(tmp_path / "labels.npy"), [[4, 6], [2, 3]])
    (scores_0, labels_0), (scores_1, labels_1) = found
    np.testing.assert_array_equal(scores_0, labels_0.reshape(-1))
    np.testing.assert_array_equal(scores_1, labels_1.reshape(-1))
    assert (len(scores_0), len(scores_1)) == (4, 2)


def test_what_a_metric_raised_comes_before_where_it_did(tmp_path: Path) -> None:
    (tmp_path / "mine.py").write_text(
        "from mindspore.train import Metric\n"
        "class Broken(Metric):\n"
        "    def clear(self): pass\n"
        "    def update(self, *inputs): raise KeyError('no such class')\n"
        "    def eval(self): return 0.0\n"
        "def make(): return {'broken': Broken()}\n"
    )
    for name in ("scores", "labels"):
        np.save(tmp_path / f"{name}.npy", np.zeros((2, 2), np.float32))
    request = {
        "launcher": os.getpid(),
        "outputs": str(tmp_path / "scores.npy"),
        "labels": str(tmp_path / "labels.npy"),
        "batch_ends": [[2], [2]],
        "loss": None,
        "metrics": ["mine:make"],
        "search_path": [str(tmp_path)],
    }
    command = [sys.executable, "-m", "workers.metrics_report"]
    done = subprocess.run(command, input=json.dumps(request), capture_output=True, text=True)
    assert done.returncode == 1
    said = done.stderr.splitlines()
    assert "a metric or the loss raised KeyError: 'no such class'" in said
    assert said.index("Traceback (most recent call last):") > 0
