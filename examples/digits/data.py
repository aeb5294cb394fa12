"""The images and labels of digits.npz."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np
from mindspore import Tensor

BATCH = 120  # test images in a batch; eight devices divide it

_FILE = Path(__file__).with_name("digits.npz")


def test_images() -> Iterator[Tensor]:
    """Yield the images that the network never saw in training, in batches of equal size."""
    images = _images("test")
    for start in range(0, len(images), BATCH):
        yield Tensor(images[start : start + BATCH])


def test_labels() -> np.ndarray:
    """Return the digit that each test image shows."""
    return _read("test_labels").astype(np.int32)


def training_set() -> tuple[np.ndarray, np.ndarray]:
    """Return the images to train with, and the digits that they show."""
    return _images("train"), _read("train_labels").astype(np.int32)


def _images(part: str) -> np.ndarray:
    """Return images as float32 from 0 to 1, shape (count, 1, 8, 8)."""
    pixels = _read(f"{part}_images")  # uint8, 0 to 16
    return (pixels[:, np.newaxis] / 16).astype(np.float32)


def _read(name: str) -> np.ndarray:
    with np.load(_FILE) as arrays:
        return arrays[name]
