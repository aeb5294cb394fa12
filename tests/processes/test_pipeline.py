"""Whole jobs on simulated ranks in pipeline stages: what ranks read, and the answer."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

FIXTURES = Path(__file__).parents[1] / "fixtures"
ROOT = Path(__file__).parents[2]

NETWORKS = """
import mindspore as ms
import networks
import numpy as np
from mindspore.common.initializer import initializer

class Staged(networks.MLP):
    def __init__(self):
        super().__init__(s1=((1, 1), (2, 1)), s2=((1, 2), (1, 2)))
        self.fc1.pipeline_stage, self.fc2.pipeline_stage = 0, 1
        self.offset = ms.Parameter(initializer("zeros", (32,)), name="offset")

    def construct(self, x):
        return super().construct(x) + self.offset

def trained():
    return networks.TwoStageMLP()

def trained_input():
    return networks.floats(16, 64)

def staged():
    return Staged()

def staged_input():
    x = np.load(r"{reference}")["x"]
    return [ms.Tensor(x[:-5]), ms.Tensor(x[-5:])]
"""


@pytest.fixture
def predict(tmp_path):
    """Predict in two stages with a network of above, from the slices of a fixture."""
    reference = FIXTURES / "mlp_col_row" / "reference.npz"
    (tmp_path / "staged.py").write_text(NETWORKS.replace("{reference}", str(reference)))

    def run(network, case, ranks, *more):
        folder = FIXTURES / case / "train"
        done = subprocess.run(
            [
                *(sys.executable, "-m", "launcher", "--ranks", str(ranks), "--device", "cpu"),
                *("--pipeline-stages", "2", "--output", str(tmp_path / "out")),
                *("--network", f"{tmp_path}/staged.py:{network}"),
                *("--predict-data", f"{tmp_path}/staged.py:{network}_input"),
                *("--checkpoint", f"{folder}/slices/rank_{{rank}}/parallel-2_2.ckpt"),
                *("--strategy", str(folder / "train_strategy.ckpt"), *more),
            ],
            capture_output=True,
            text=True,
            timeout=110,
            cwd=ROOT,
            env={**os.environ, "PYTHONPATH": str(FIXTURES)},
        )
        assert done.returncode == 0, done.stderr
        summary = json.loads((tmp_path / "out" / "summary.json").read_text())
        return np.load(tmp_path / "out" / "predictions.npy"), summary

    return run


def test_a_rank_reads_the_slices_of_its_stage_and_gets_the_answer_of_one_process(predict):
    found, summary = predict("trained", "two_stage_mlp", 8, "--check-single")
    reference = np.load(FIXTURES / "two_stage_mlp" / "reference.npz")["y"]
    np.testing.assert_allclose(found, reference, rtol=0, atol=1e-5 * np.abs(reference).max())
    # Weights of 128 x 64 in 2 parts and a bias of 128; of 32 x 128 in 4 parts and one of 32.
    bytes_read = [rank["bytes_read"] for rank in summary["ranks"]]
    assert bytes_read == [4 * (128 * 64 // 2 + 128)] * 4 + [4 * (32 * 128 // 4 + 32)] * 4


def test_slices_that_were_trained_without_a_pipeline_are_predicted_in_stages(predict):
    found, summary = predict("staged", "mlp_col_row", 4, "--allow-missing", "offset")
    reference = np.load(FIXTURES / "mlp_col_row" / "reference.npz")["y"]
    np.testing.assert_allclose(found, reference, rtol=0, atol=1e-5 * np.abs(reference).max())
    assert summary["batches"] == 2  # the shorter one has a program of its own
    assert summary["initial_parameters"] == ["offset"]  # of the second stage
