"""Delivered outputs come back as the batches that they were delivered in."""

from __future__ import annotations

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
