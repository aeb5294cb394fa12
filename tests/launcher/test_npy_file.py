"""The growing .npy file: NumPy itself says whether it is one."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from launcher.npy_file import GrowingNpy


@pytest.mark.parametrize("dtype", ["float32", "int64", "bool", "float16", "complex64"])
def test_numpy_reads_what_was_appended(tmp_path: Path, dtype: str) -> None:
    rows = np.arange(12).reshape(6, 2).astype(dtype)
    file = GrowingNpy(tmp_path / "a.npy", rows.dtype, (2,))
    file.append(rows[:4])
    file.append(rows[4:])
    file.commit(6)
    file.close()
    read = np.load(tmp_path / "a.npy")
    assert read.dtype == rows.dtype
    np.testing.assert_array_equal(read, rows)


def test_the_file_is_valid_before_the_first_row(tmp_path: Path) -> None:
    file = GrowingNpy(tmp_path / "a.npy", np.dtype(np.float32), (3, 4))
    assert np.load(file.path).shape == (0, 3, 4)
    file.close()


def test_rows_beyond_the_committed_ones_are_cut_off(tmp_path: Path) -> None:
    file = GrowingNpy(tmp_path / "a.npy", np.dtype(np.int32), ())
    file.append(np.arange(5, dtype=np.int32))
    file.commit(3)
    file.close()
    np.testing.assert_array_equal(np.load(file.path), [0, 1, 2])
    assert file.path.stat().st_size == 512 + 3 * 4


def test_rows_that_are_not_contiguous_are_written_in_c_order(tmp_path: Path) -> None:
    rows = np.arange(6, dtype=np.float64).reshape(2, 3).T
    file = GrowingNpy(tmp_path / "a.npy", rows.dtype, (2,))
    file.append(rows)
    file.commit(3)
    file.close()
    np.testing.assert_array_equal(np.load(file.path), rows)


def test_the_shape_may_be_another_one_of_the_same_size(tmp_path: Path) -> None:
    file = GrowingNpy(tmp_path / "a.npy", np.dtype(np.float32), ())
    file.append(np.array([7], np.float32))
    file.commit(1, shape=())
    file.close()
    assert np.load(file.path).shape == ()
    assert np.load(file.path) == 7
