"""Make digits.npz from scikit-learn's copy of the UCI digits. Run once; digits.npz is kept.

    pip install scikit-learn    # needed by nothing else in this project
    python make_dataset.py
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
from sklearn.datasets import load_digits

SEED = 0  # of the split
TEST_IMAGES = 360  # three batches of 120, which eight devices divide


def main() -> None:
    digits = load_digits()
    images, labels = digits.images.astype(np.uint8), digits.target.astype(np.uint8)
    order = np.random.RandomState(SEED).permutation(len(images))
    test, train = order[:TEST_IMAGES], order[TEST_IMAGES:]
    np.savez_compressed(
        Path(__file__).with_name("digits.npz"),
        train_images=images[train],
        train_labels=labels[train],
        test_images=images[test],
        test_labels=labels[test],
    )


if __name__ == "__main__":
    main()
