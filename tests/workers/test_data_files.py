"""Files of data: the rows that NumPy would give, in batches, each read when it is asked for."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from workers.data_files import DataFileError, DataFiles, is_data_file
from workers.resharding.checkpoint_file import write_checkpoint

X = np.arange(30, dtype=np.float32).reshape(10, 3)
Y = np.arange(10, dtype=np.int64)


def save_npy(path: Path) -> str:
    np.save(path / "x.npy", X)
    return str(path / "x.npy")


def save_fortran(path: Path) -> str:
    np.save(path / "x.npy", np.asfortranarray(X.astype(">f4")))
    return str(path / "x.npy")


def save_npz(path: Path) -> str:
    np.savez(path / "x.npz", x=X, y=Y)
    return str(path / "x.npz:x")


def save_compressed(path: Path) -> str:
    np.savez_compressed(path / "x.npz", y=Y, x=X)
    return str(path / "x.npz:x")


def save_safetensors(path: Path) -> str:
    write_checkpoint(path / "x.safetensors", {"x": X})
    return str(path / "x.safetensors")


@pytest.mark.parametrize(
    "save", [save_npy, save_fortran, save_npz, save_compressed, save_safetensors]
)
def test_a_file_is_cut_into_batches_along_its_rows(
    tmp_path: Path, save: Callable[[Path], str]
) -> None:
    files = DataFiles(save(tmp_path), batch_size=4)
    assert (len(files), files.samples) == (3, 10)
    batches = list(files.read_ahead(range(3)))
    assert [batch[0].shape for batch in batches] == [(4, 3), (4, 3), (2, 3)]
    np.testing.assert_array_equal(np.concatenate([x for (x,) in batches]), X)
    assert [files.first_row(number) for number in range(3)] == [0, 4, 8]


def test_the_arrays_of_a_file_are_the_inputs_of_a_network(tmp_path: Path) -> None:
    np.savez(tmp_path / "xy.npz", x=X, y=Y)
    x, y = DataFiles(str(tmp_path / "xy.npz"), batch_size=8)[1]
    np.testing.assert_array_equal(x, X[8:])
    np.testing.assert_array_equal(y, Y[8:])


def test_the_files_of_a_folder_follow_each_other_in_the_order_of_their_numbers(
    tmp_path: Path,
) -> None:
    for number in (10, 9, 2):
        np.save(tmp_path / f"part_{number}.npy", np.full(3, number))
    (tmp_path / "README").touch()
    files = DataFiles(str(tmp_path), batch_size=2)
    batches = [files[number][0].tolist() for number in range(len(files))]
    assert batches == [[2, 2], [2], [9, 9], [9], [10, 10], [10]]
    assert files.first_row(4) == 6


@pytest.mark.parametrize(
    ("make", "name", "said"),
    [
        (lambda path: None, "none.npy", "No such file"),
        (lambda path: (path / "a.npy").write_text("text"), "a.npy", "a.npy: .*magic"),
        (lambda path: np.save(path / "a.npy", np.array(1)), "a.npy", "rows"),
        (lambda path: np.savez(path / "a.npz", x=X, z=Y[:4]), "a.npz", "x .10, 3., z .4,."),
        (lambda path: np.savez(path / "a.npz", x=X), "a.npz:y", "no array 'y'; it has x"),
        (lambda path: None, ".", "the folder holds no data"),
        (lambda path: np.save(path / "a.npy", np.array([{}])), "a.npy", "Python objects"),
    ],
)
def test_what_cannot_be_read_is_named(
    tmp_path: Path, make: Callable[[Path], object], name: str, said: str
) -> None:
    make(tmp_path)
    with pytest.raises(DataFileError, match=said):
        DataFiles(str(tmp_path / name))


def test_files_are_told_from_callables(tmp_path: Path) -> None:
    assert all(map(is_data_file, ("a.npy", "a.npz:x", "/d/a.safetensors", str(tmp_path))))
    assert not any(map(is_data_file, ("net:data", "dir/net.py:data")))
