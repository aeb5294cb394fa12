"""Ranks that share the data, as real processes: the answer of one process, sample by sample."""

from __future__ import annotations

import json
import runpy
import subprocess
import sys
from pathlib import Path

import mindspore
import numpy as np
import pytest
from mindspore.train import Model

import launcher

ROOT = Path(__file__).parents[2]
LENET = ROOT / "examples" / "lenet"
WEIGHTS = 4 * 61_684  # bytes
SAMPLES = 43  # of 3 ranks and batches of 8: nothing divides them

DATA = f"""
import numpy as np
from mindspore.dataset import NumpySlicesDataset

with np.load({str(ROOT / "examples/digits/digits.npz")!r}) as arrays:
    IMAGES = np.kron(arrays["test_images"][:{SAMPLES}], np.ones((4, 4)))[:, None] / 16
    LABELS = arrays["test_labels"][:{SAMPLES}].astype(np.int32)

def sharded(batch_size, num_shards=1, shard_id=0):
    columns = {{"image": IMAGES.astype(np.float32), "label": LABELS}}
    shard = {{"num_shards": num_shards, "shard_id": shard_id}}
    return NumpySlicesDataset(columns, shuffle=False, **shard).batch(batch_size)

def plain(batch_size):
    yield from sharded(batch_size)
"""


@pytest.mark.parametrize("dataset", ["sharded", "plain"])
def test_three_ranks_evaluate_each_sample_once(tmp_path: Path, dataset: str) -> None:
    (tmp_path / "data.py").write_text(DATA)
    job = (LENET / "job.yaml", "--ranks=3", "--device=cpu", "--parallel-mode=data_parallel")
    flags = (f"--dataset={tmp_path}/data.py:{dataset}", "--batch-size=8", "--metrics=accuracy,loss")
    command = [sys.executable, "-m", "launcher", *map(str, job), *flags]
    done = subprocess.run(
        [*command, f"--output={tmp_path / 'out'}", "--json"],
        capture_output=True,
        text=True,
        timeout=110,
        cwd=ROOT,
    )
    assert done.returncode == 0, done.stderr
    expected, scores, labels = evaluate_here(tmp_path)
    found = json.loads(done.stdout)
    assert [rank["bytes_read"] for rank in found["ranks"]] == [WEIGHTS, 0, 0]  # once, for all
    assert found["metrics"]["accuracy"] == expected["accuracy"]
    np.testing.assert_array_equal(np.load(tmp_path / "out" / "labels.npy"), labels)
    predictions = np.load(tmp_path / "out" / "predictions.npy")
    if dataset == "plain":  # whole batches: the same to the last bit
        assert found["metrics"] == expected
        np.testing.assert_array_equal(predictions, scores)
    else:
        np.testing.assert_allclose(predictions, scores, rtol=1e-5, atol=1e-5)


def evaluate_here(folder: Path) -> tuple[dict[str, float], np.ndarray, np.ndarray]:
    """Return the metrics, scores and labels of one process."""
    from examples.lenet.network import LeNet5, make_loss

    names = runpy.run_path(str(folder / "data.py"))
    network = LeNet5()
    mindspore.load_checkpoint(str(LENET / "lenet.ckpt"), network)
    model = Model(network, make_loss(), metrics={"accuracy", "loss"})
    data = names["sharded"](8)
    scores = [model.predict(images).asnumpy() for images, _ in data]
    metrics = model.eval(data, dataset_sink_mode=False)
    return metrics, np.concatenate(scores), names["LABELS"]


def test_a_plan_says_that_one_rank_reads_the_whole_weights_for_all() -> None:
    job = launcher.load_job(LENET / "job.yaml", ranks=3, parallel_mode="data_parallel")
    plan = launcher.plan(job).to_dict({})
    assert [rank["bytes_to_read"] for rank in plan["ranks"]] == [WEIGHTS, 0, 0]
    assert all(p["slice_shape"] == p["full_shape"] for p in plan["parameters"].values())
