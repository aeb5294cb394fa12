"""The digits example is what it says: trained on real images, and shipped as eight slices."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path

import mindspore
import numpy as np
import pytest

from workers.resharding.checkpoint_file import read_index
from workers.resharding.strategy_file import read_strategy_file

FOLDER = Path(__file__).parents[2] / "examples" / "digits"
CHECKPOINT = FOLDER / "checkpoint"

RunWhole = Callable[[str], tuple[Mapping[str, np.ndarray], np.ndarray]]


@pytest.fixture
def digits() -> dict[str, np.ndarray]:
    with np.load(FOLDER / "digits.npz") as arrays:
        return dict(arrays)


def test_slices_recognise_96_percent_of_the_images_not_trained_on(
    run_whole: RunWhole, digits: dict[str, np.ndarray]
) -> None:
    _, scores = run_whole("digits")
    right = scores.argmax(axis=1) == digits["test_labels"]
    assert right.shape == (360,)
    assert right.mean() >= 0.96


def test_data_are_1797_images_and_none_is_in_both_parts(digits: dict[str, np.ndarray]) -> None:
    train, test = digits["train_images"], digits["test_images"]
    assert (train.shape, test.shape) == ((1437, 8, 8), (360, 8, 8))
    assert (train.dtype, train.max()) == (np.uint8, 16)
    assert not {image.tobytes() for image in train} & {image.tobytes() for image in test}


def test_large_weights_are_cut_by_strategy_and_once_more_by_the_optimizer() -> None:
    layouts = read_strategy_file(CHECKPOINT / "strategy.ckpt")
    # Rank 6 is (1, 2) of 2 x 4 devices. fc2 (128, 256) is cut into 4 by columns: the third
    # quarter. Ranks 2 and 6 share that quarter, so the optimizer gives rank 6 the second half.
    fc2 = layouts["fc2.weight"]
    assert (fc2.device_matrix, fc2.tensor_map) == ((2, 4), (-1, 0))
    assert fc2.region(6, (128, 256)).as_slices() == np.s_[64:128, 128:192]
    # fc1 (256, 512) is cut into 4 by rows, and each quarter into 2 by rows again.
    assert layouts["fc1.weight"].region(6, (256, 512)).as_slices() == np.s_[160:192, 0:512]
    # The rest is small: every rank keeps fc3 whole.
    assert layouts["fc3.weight"].region(6, (10, 128)).shape == (10, 128)


def test_files_hold_the_slices_of_their_rank_and_stay_small() -> None:
    files = sorted(CHECKPOINT.glob("rank_*/digits-*.ckpt"))
    assert [file.parent.name for file in files] == [f"rank_{rank}" for rank in range(8)]
    assert {read_index(file).tensors["fc2.weight"].dims for file in files} == {(64, 64)}
    assert sum(file.stat().st_size for file in files) < 3_000_000


def test_mindspore_itself_puts_the_slices_together_to_the_same_weights(
    run_whole: RunWhole, tmp_path: Path
) -> None:
    strategy = str(CHECKPOINT / "strategy.ckpt")
    mindspore.transform_checkpoints(str(CHECKPOINT), str(tmp_path), "whole", strategy, None)
    theirs = mindspore.load_checkpoint(str(tmp_path / "rank_0" / "whole0.ckpt"))
    ours, _ = run_whole("digits")
    assert theirs.keys() == ours.keys()
    for name, weight in theirs.items():
        np.testing.assert_array_equal(ours[name], weight.asnumpy(), err_msg=name)
