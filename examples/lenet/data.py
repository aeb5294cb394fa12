"""The digits of examples/digits, enlarged to the 32x32 pixels that LeNet5 takes."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from mindspore.dataset import Dataset, NumpySlicesDataset

_FILE = Path(__file__).parents[1] / "digits" / "digits.npz"


def create_dataset(batch_size: int = 32, part: str = "test") -> Dataset:
    """Return batches of (images, labels); the last one is smaller."""
    with np.load(_FILE) as arrays:
        pixels, labels = arrays[f"{part}_images"], arrays[f"{part}_labels"]
    images = np.kron(pixels, np.ones((4, 4))).astype(np.float32)[:, np.newaxis] / 16
    columns = {"image": images, "label": labels.astype(np.int32)}
    return NumpySlicesDataset(columns, shuffle=part == "train").batch(batch_size)
