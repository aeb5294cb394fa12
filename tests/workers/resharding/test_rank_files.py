from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from workers.resharding.errors import (
    MissingRankError,
    RankCountError,
    RankOrderError,
    SeveralFilesError,
    StepMismatchError,
)
from workers.resharding.rank_files import find_rank_files


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Three ranks, one file each."""
    for rank in range(3):
        (tmp_path / f"rank_{rank}").mkdir()
        (tmp_path / f"rank_{rank}" / "net-2_5.ckpt").touch()
    return tmp_path


@pytest.mark.parametrize(
    "pattern", ["", "rank_{rank}/net-2_5.ckpt", "rank_{rank}/*.ckpt", "*_{rank}/net-?_5.ckpt"]
)
def test_a_folder_a_pattern_and_globs_find_the_same_files(pattern: str, folder: Path) -> None:
    files = find_rank_files(str(folder / pattern), 3)
    assert files == {rank: folder / f"rank_{rank}" / "net-2_5.ckpt" for rank in range(3)}


def test_a_name_with_glob_characters_is_taken_as_it_is(tmp_path: Path) -> None:
    for rank in range(2):
        (tmp_path / f"run[1]_{rank}.ckpt").touch()
    assert len(find_rank_files(str(tmp_path / "run[1]_{rank}.ckpt"), 2)) == 2


def test_every_missing_rank_is_named(folder: Path) -> None:
    (folder / "rank_1" / "net-2_5.ckpt").rename(folder / "rank_1" / "net-2_5.ckpt.tmp")
    with pytest.raises(MissingRankError, match=r"rank 1, 3: nothing .*rank_1/\*.ckpt") as caught:
        find_rank_files(str(folder), 4)
    assert caught.value.ranks == (1, 3)


def test_all_that_was_looked_for_is_told_of_a_missing_rank(folder: Path) -> None:
    for rank in (0, 2):
        (folder / f"rank_{rank}" / "net-2_5.ckpt").rename(folder / f"rank_{rank}" / "n.safetensors")
    (folder / "rank_1" / "net-2_5.ckpt").unlink()
    told = r"nothing matches .*/rank_1/\*\.ckpt or .*/rank_1/\*\.safetensors; "
    with pytest.raises(MissingRankError, match=told):
        find_rank_files(str(folder), 3)


def test_one_file_is_not_enough_for_several_ranks(folder: Path) -> None:
    with pytest.raises(MissingRankError, match="this is one file, .* 3 ranks; write {rank}"):
        find_rank_files(str(folder / "rank_0" / "net-2_5.ckpt"), 3)
    assert len(find_rank_files(str(folder / "rank_0" / "net-2_5.ckpt"), 1)) == 1


def test_a_path_where_nothing_is_is_not_taken_for_one_file(tmp_path: Path) -> None:
    with pytest.raises(MissingRankError, match="^no checkpoint file: nothing matches .*gone$"):
        find_rank_files(str(tmp_path / "gone"), 3)


def test_of_several_steps_the_newest_is_taken_that_every_rank_has(folder: Path) -> None:
    for rank in range(3):  # 9_1 and 10_1 compare as numbers, and rank 1 never saved 11_1
        for step in ("9_1", "10_1", *(["11_1"] if rank != 1 else [])):
            (folder / f"rank_{rank}" / f"net-{step}.ckpt").touch()
    names = {path.name for path in find_rank_files(str(folder), 3).values()}
    assert names == {"net-10_1.ckpt"}


def test_a_run_that_was_started_again_is_newer(folder: Path) -> None:
    for rank in range(3):
        (folder / f"rank_{rank}" / "net_1-1_5.ckpt").touch()
    assert find_rank_files(str(folder), 3)[0].name == "net_1-1_5.ckpt"


def test_what_an_exception_saved_comes_after_a_regular_file_of_the_step(folder: Path) -> None:
    for rank in range(3):
        (folder / f"rank_{rank}" / "net-2_5_breakpoint.ckpt").touch()
    assert find_rank_files(str(folder), 3)[0].name == "net-2_5.ckpt"


@pytest.mark.parametrize("other", ["best.ckpt", "net-2_5.safetensors", "other-2_4.ckpt"])
def test_files_whose_names_do_not_tell_the_newest_are_listed(other: str, folder: Path) -> None:
    for rank in range(3):
        (folder / f"rank_{rank}" / other).touch()
    with pytest.raises(SeveralFilesError, match="rank 0 has 2 files") as caught:
        find_rank_files(str(folder), 3)
    assert {Path(path).name for path in caught.value.paths} == {"net-2_5.ckpt", other}


@pytest.mark.parametrize("kind", ["rank_{}", "rank_{}_ckpt", "device{0}/rank_{0}_ckpt"])
@pytest.mark.parametrize("suffix", ["ckpt", "safetensors"])
def test_every_kind_of_folder_is_known(kind: str, suffix: str, tmp_path: Path) -> None:
    root = tmp_path / "run [1]"
    for rank in range(12):
        (root / kind.format(rank)).mkdir(parents=True)
        (root / kind.format(rank) / f"net-2_5.{suffix}").touch()
        (root / kind.format(rank) / "net-graph.meta").touch()
    files = find_rank_files(str(root), None)
    assert files == {
        rank: root / kind.format(rank) / f"net-2_5.{suffix}" for rank in range(12)
    }


def test_more_ranks_than_the_strategy_knows_are_refused(folder: Path) -> None:
    with pytest.raises(RankCountError, match="for 2 ranks, but there is .*rank_2/net-2_5.ckpt"):
        find_rank_files(str(folder), 2)


@pytest.mark.parametrize(
    "pattern", ["", "rank_{rank}/*.ckpt", "*{rank}/net-2_5.ckpt", "r?nk_{rank}/net-[2]*.ckpt"]
)
def test_so_are_ranks_behind_a_gap(pattern: str, folder: Path) -> None:
    (folder / "rank_3").mkdir()
    (folder / "rank_2024").mkdir()
    assert len(find_rank_files(str(folder / pattern), 3)) == 3
    shutil.copytree(folder / "rank_0", folder / "rank_17")
    with pytest.raises(RankCountError, match="for 3 ranks, but there is .*rank_17/net-2_5.ckpt"):
        find_rank_files(str(folder / pattern), 3)


def test_the_steps_in_the_names_of_files_are_no_ranks(tmp_path: Path) -> None:
    for rank in range(2):
        (tmp_path / f"net_rank{rank}-7_2024.ckpt").touch()
    assert len(find_rank_files(str(tmp_path / "net_rank{rank}-*.ckpt"), 2)) == 2
    assert len(find_rank_files(str(tmp_path / "*_rank{rank}-*_2024.ckpt"), 2)) == 2


def test_a_file_that_a_rank_has_is_that_of_no_other(tmp_path: Path) -> None:
    for rank in range(2):
        (tmp_path / f"2024_{rank}_ckpt").mkdir()
        (tmp_path / f"2024_{rank}_ckpt" / "net.ckpt").touch()
    assert len(find_rank_files(str(tmp_path / "*{rank}_*" / "*.ckpt"), 2)) == 2


def test_a_file_of_another_rank_in_the_folder_of_this_one_is_refused(tmp_path: Path) -> None:
    for rank, named in enumerate((1, 0)):
        (tmp_path / f"rank_{rank}").mkdir()
        (tmp_path / f"rank_{rank}" / f"net_rank{named}-1_1.ckpt").touch()
    with pytest.raises(RankOrderError, match="net_rank1-1_1.ckpt: taken for rank 0, .* rank 1"):
        find_rank_files(str(tmp_path), 2)


def test_a_number_in_a_part_that_the_pattern_writes_out_says_nothing(tmp_path: Path) -> None:
    for rank in range(2):
        (tmp_path / f"node{rank}" / "rank_0").mkdir(parents=True)
        (tmp_path / f"node{rank}" / "rank_0" / "net.ckpt").touch()
    assert len(find_rank_files(str(tmp_path / "node{rank}" / "rank_0" / "*.ckpt"), 2)) == 2


def test_ranks_at_different_steps_are_refused(folder: Path) -> None:
    (folder / "rank_2" / "net-2_5.ckpt").rename(folder / "rank_2" / "net-3_5.ckpt")
    with pytest.raises(StepMismatchError, match="net-2_5.ckpt and .*net-3_5.ckpt are of different"):
        find_rank_files(str(folder), 3)
