"""The tutorial example has an answer that one device agrees with."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path

import mindspore
import numpy as np

from workers.resharding.strategy_file import read_strategy_file

FOLDER = Path(__file__).parents[2] / "examples" / "tutorial"
CHECKPOINT = FOLDER / "checkpoint"

RunWhole = Callable[[str], tuple[Mapping[str, np.ndarray], np.ndarray]]


def test_slices_give_the_answer_of_one_device(run_whole: RunWhole) -> None:
    weights, answer = run_whole("tutorial")
    expected = np.load(FOLDER / "expected.npy")
    assert expected.shape == (128, 16)
    np.testing.assert_allclose(answer, expected, rtol=1e-5, atol=1e-6)
    # x is 128 samples of RandomState(0), as data.py makes it
    x = np.random.RandomState(0).randn(128, 96).astype(np.float32)
    np.testing.assert_allclose(-(x @ weights["matmul_weight"]), expected, rtol=1e-4, atol=1e-5)


def test_weight_was_saved_as_four_column_slices_by_eight_devices() -> None:
    layout = read_strategy_file(CHECKPOINT / "strategy.ckpt")["matmul_weight"]
    # ((2, 1), (1, 4)): rank 6 is (1, 2) of 2 x 4 devices and holds the third four columns.
    assert layout.region(6, (96, 16)).as_slices() == np.s_[0:96, 8:12]
    assert layout.ranks == tuple(range(8))


def test_mindspore_itself_puts_the_slices_together_to_the_same_weight(
    run_whole: RunWhole, tmp_path: Path
) -> None:
    strategy = str(CHECKPOINT / "strategy.ckpt")
    mindspore.transform_checkpoints(str(CHECKPOINT), str(tmp_path), "whole", strategy, None)
    theirs = mindspore.load_checkpoint(str(tmp_path / "rank_0" / "whole0.ckpt"))
    ours, _ = run_whole("tutorial")
    np.testing.assert_array_equal(ours["matmul_weight"], theirs["matmul_weight"].asnumpy())
