from __future__ import annotations

import os
from pathlib import Path

import pytest

from workers.resharding.errors import TargetFolderError
from workers.resharding.staging import Staging


def test_nothing_is_visible_before_the_end(tmp_path: Path) -> None:
    target = tmp_path / "deep" / "target"
    with Staging(target, "work") as staging:
        (staging.folder / "rank_0").mkdir()
        (staging.folder / "rank_0" / "a.ckpt").touch()
        assert not target.exists()
        staging.commit()
    assert [str(path.relative_to(tmp_path)) for path in sorted(tmp_path.rglob("*"))] == [
        "deep",
        "deep/target",
        "deep/target/rank_0",
        "deep/target/rank_0/a.ckpt",
    ]


def test_the_same_work_goes_on_where_it_ended(tmp_path: Path) -> None:
    with Staging(tmp_path / "target", "work") as staging:
        (staging.folder / "a.ckpt").touch()
        staging.finish(3)
        staging.finish(5)
    with Staging(tmp_path / "target", "work") as staging:
        assert staging.done == {3, 5}
        assert (staging.folder / "a.ckpt").exists()


def test_other_work_begins_anew(tmp_path: Path) -> None:
    with Staging(tmp_path / "target", "work") as staging:
        (staging.folder / "rank_0").mkdir()
        (staging.folder / "a.ckpt").touch()
        staging.finish(3)
    with Staging(tmp_path / "target", "other work") as staging:
        assert staging.done == frozenset()
        assert [path.name for path in staging.folder.iterdir()] == [".journal"]


def test_a_line_of_the_journal_that_was_torn_does_not_count(tmp_path: Path) -> None:
    with Staging(tmp_path / "target", "work") as staging:
        staging.finish(3)
        journal = staging.folder / ".journal"
    journal.write_text(journal.read_text() + "1")  # of 12, perhaps
    with Staging(tmp_path / "target", "work") as staging:
        assert staging.done == {3}
        staging.finish(7)
    with Staging(tmp_path / "target", "work") as staging:
        assert staging.done == {3, 7}


def test_a_line_of_the_journal_that_a_power_cut_left_blank_does_not_count(tmp_path: Path) -> None:
    with Staging(tmp_path / "target", "work") as staging:
        staging.finish(3)
        journal = staging.folder / ".journal"
    journal.write_bytes(journal.read_bytes() + b"\0\0\n\xff\n5\n")
    with Staging(tmp_path / "target", "work") as staging:
        assert staging.done == {3, 5}


def test_an_empty_target_is_filled_and_a_full_one_refused(tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    with Staging(tmp_path / "empty", "work") as staging:
        (staging.folder / "a.ckpt").touch()
        staging.commit()
    with pytest.raises(TargetFolderError, match="empty: it is not empty; name a new folder"):
        Staging(tmp_path / "empty", "work").__enter__()


@pytest.mark.parametrize("is_there", [True, False])
def test_a_link_stays_and_the_folder_behind_it_is_filled(is_there: bool, tmp_path: Path) -> None:
    (tmp_path / "disk").mkdir()
    if is_there:
        (tmp_path / "disk" / "target").mkdir()
    (tmp_path / "link").symlink_to(tmp_path / "disk" / "target")
    with Staging(tmp_path / "link", "work") as staging:
        assert staging.folder.parent == tmp_path / "disk"
        (staging.folder / "a.ckpt").touch()
        staging.commit()
    assert (tmp_path / "link").is_symlink()
    assert [path.name for path in (tmp_path / "disk" / "target").iterdir()] == ["a.ckpt"]


def test_a_mount_point_is_refused_before_the_work_and_not_after_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "disk").mkdir()
    monkeypatch.setattr(os.path, "ismount", lambda path: Path(path) == tmp_path / "disk")
    with pytest.raises(TargetFolderError, match="disk: a file system is mounted there"):
        Staging(tmp_path / "disk", "work").__enter__()


def test_two_processes_do_not_write_one_target(tmp_path: Path) -> None:
    with (
        Staging(tmp_path / "target", "work"),
        pytest.raises(TargetFolderError, match="another process is writing it"),
    ):
        Staging(tmp_path / "target", "work").__enter__()
