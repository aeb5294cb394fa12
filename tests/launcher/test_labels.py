"""Labels: which files are read, and what accuracy means."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from launcher.errors import JobError
from launcher.labels import accuracy, read_labels


@pytest.fixture
def archive(tmp_path: Path) -> Path:
    np.savez(tmp_path / "data.npz", y=np.array([2, 0, 1]), x=np.zeros(3))
    return tmp_path / "data.npz"


def test_labels_come_from_a_key_of_an_archive(archive: Path) -> None:
    assert read_labels(f"{archive}:y").tolist() == [2, 0, 1]


def test_labels_come_from_an_npy_file(tmp_path: Path) -> None:
    np.save(tmp_path / "y.npy", np.array([1, 0], np.uint8))
    assert read_labels(str(tmp_path / "y.npy")).tolist() == [1, 0]


@pytest.mark.parametrize(
    ("suffix", "said"), [("", "it does not say which array"), (":z", "no array 'z'")]
)
def test_the_keys_of_an_archive_are_offered(archive: Path, suffix: str, said: str) -> None:
    with pytest.raises(JobError, match=f"{said}; try .*data.npz:y or .*data.npz:x"):
        read_labels(f"{archive}{suffix}")


def test_labels_are_integers(archive: Path) -> None:
    with pytest.raises(JobError, match="dtype float64; labels are class numbers"):
        read_labels(f"{archive}:x")


def test_a_file_that_is_not_there_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(JobError, match="labels: .*none.npy: No such file"):
        read_labels(str(tmp_path / "none.npy"))


@pytest.mark.parametrize("name", ["y.npy", "y.npz:y"])
def test_a_file_that_holds_no_array_is_an_error(tmp_path: Path, name: str) -> None:
    (tmp_path / name.partition(":")[0]).write_bytes(b"PK\x03\x04 no archive")
    with pytest.raises(JobError, match="numpy.save"):
        read_labels(str(tmp_path / name))


def test_a_header_that_asks_for_more_than_there_can_be_is_an_error(tmp_path: Path) -> None:
    header = b"{'descr': '<i8', 'fortran_order': False, 'shape': (1000000000000000,)}"
    size = len(header).to_bytes(2, "little")
    (tmp_path / "y.npy").write_bytes(b"\x93NUMPY\x01\x00" + size + header)
    with pytest.raises(JobError, match="numpy.save"):
        read_labels(str(tmp_path / "y.npy"))


def test_no_labels_at_all_are_an_error(tmp_path: Path) -> None:
    np.save(tmp_path / "y.npy", np.zeros(0, np.int64))
    with pytest.raises(JobError, match="y.npy: it is empty"):
        read_labels(str(tmp_path / "y.npy"))


def test_objects_are_never_unpickled(tmp_path: Path) -> None:
    np.save(tmp_path / "y.npy", np.array([{}], dtype=object), allow_pickle=True)
    with pytest.raises(JobError, match="allow_pickle=False"):
        read_labels(str(tmp_path / "y.npy"))


def test_accuracy_is_the_share_of_largest_scores_at_the_label(tmp_path: Path) -> None:
    # largest scores at 1, 0, 2, 0; labels 1, 0, 2, 2: three of four
    scores = np.array([[0, 9, 1], [5, 1, 0], [1, 2, 3], [8, 0, 7]], np.float32)
    np.save(tmp_path / "p.npy", scores)
    assert accuracy(np.array([1, 0, 2, 2]), tmp_path / "p.npy", "y.npy") == 0.75


def test_labels_and_predictions_must_be_equally_many(tmp_path: Path) -> None:
    np.save(tmp_path / "p.npy", np.zeros((4, 3)))
    with pytest.raises(JobError, match="one label for each prediction"):
        accuracy(np.array([1, 0, 2]), tmp_path / "p.npy", "y.npy")


@pytest.mark.parametrize("label", [-1, 3])
def test_a_label_that_is_no_class_of_the_network_is_an_error(tmp_path: Path, label: int) -> None:
    np.save(tmp_path / "p.npy", np.zeros((2, 3)))
    with pytest.raises(JobError, match="labels from .* for 3 classes; .* from 0 to 2"):
        accuracy(np.array([0, label]), tmp_path / "p.npy", "y.npy")


def test_scores_that_are_no_numbers_are_an_error(tmp_path: Path) -> None:
    scores = np.zeros((9000, 3), np.float32)
    scores[8000, 1] = np.nan
    np.save(tmp_path / "p.npy", scores)
    with pytest.raises(JobError, match="predictions: prediction 8000 is NaN"):
        accuracy(np.zeros(9000, np.int64), tmp_path / "p.npy", "y.npy")


def test_labels_may_have_several_dims_or_none(tmp_path: Path) -> None:
    scores = np.zeros((2, 2, 3))
    scores[0, 1, 2] = 1
    np.save(tmp_path / "p.npy", scores)
    assert accuracy(np.array([[0, 2], [0, 1]]), tmp_path / "p.npy", "y.npy") == 0.75
    np.save(tmp_path / "p.npy", np.array([0.0, 5.0]))
    assert accuracy(np.array(1), tmp_path / "p.npy", "y.npy") == 1.0
