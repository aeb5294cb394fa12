from __future__ import annotations

import glob
import os
from pathlib import Path

import pytest

from workers.resharding.listing import LocalListing
from workers.resharding.rank_files import find_rank_files

NAMES = ["b.ckpt", "a.ckpt", ".hidden.ckpt", ".ckpt", "c.CKPT", "d.ckpt.tmp", "e.safetensors"]


@pytest.mark.parametrize("folder", ["run", "run//", "run/.", "run [1]", "no", "file"])
@pytest.mark.parametrize(
    "name", ["*.ckpt", "*.safetensors", "*.*", "*.[c]kpt", "*", "a.ckpt", "no.ckpt", "?.ckpt", ""]
)
def test_matches_are_those_of_glob(
    folder: str, name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "file").touch()
    for made in ("run", "run [1]"):
        (tmp_path / made / "folder.ckpt").mkdir(parents=True)
        for file in NAMES:
            (tmp_path / made / file).touch()
    for pattern in (f"{folder}/{name}", f"{tmp_path}/{folder}/{name}"):
        found = glob.glob(pattern, recursive=True)
        expected = [pattern] if os.path.exists(pattern) else sorted(found)
        assert LocalListing().matches(pattern) == expected
        assert LocalListing().matches(glob.escape(folder) + "/" + name) == sorted(
            glob.glob(glob.escape(folder) + "/" + name)
        )


def test_a_file_whose_name_is_the_pattern_is_that_file(tmp_path: Path) -> None:
    for name in ("*.ckpt", "a.ckpt"):
        (tmp_path / name).touch()
    assert LocalListing().matches(f"{tmp_path}/*.ckpt") == [f"{tmp_path}/*.ckpt"]


def test_each_folder_is_looked_into_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for rank in range(3):
        (tmp_path / f"rank_{rank}").mkdir()
        (tmp_path / f"rank_{rank}" / "net-1_1.ckpt").touch()
    looked: list[str] = []
    listdir = os.listdir

    def look(folder: str) -> list[str]:
        looked.append(os.path.basename(folder))
        return listdir(folder)

    monkeypatch.setattr(os, "listdir", look)
    assert len(find_rank_files(str(tmp_path), 3)) == 3
    assert looked == ["rank_0", "rank_1", "rank_2", "rank_3"]
