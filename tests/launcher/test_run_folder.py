"""The output folder: which names there are, and what becomes of an earlier result."""

from __future__ import annotations

import errno
import fcntl
from pathlib import Path

import pytest

from launcher.errors import FolderInUseError
from launcher.run_folder import RunFolder


@pytest.fixture
def folder(tmp_path: Path) -> RunFolder:
    folder = RunFolder(tmp_path / "deep" / "out")
    folder.create()
    return folder


def names(folder: RunFolder) -> dict[str, str]:
    return {path.name: path.read_text() for path in folder.root.glob("*.npy")}


def test_one_output_has_no_number(folder: RunFolder) -> None:
    assert folder.predictions(0, 1) == folder.root / "predictions.npy"
    assert folder.predictions(1, 2) == folder.root / "predictions_1.npy"
    assert folder.partial(0, 1) == folder.root / "predictions.partial.npy"
    assert folder.log(3) == folder.root / "logs" / "rank_3.log"


def test_a_new_run_forgets_what_one_process_predicted_for_an_earlier_one(
    folder: RunFolder,
) -> None:
    folder.single.create()
    folder.begin()
    assert folder.single.root.exists()  # without events it may be anybody's
    folder.single.events.touch()
    folder.begin()
    assert not folder.single.root.exists()


def test_only_one_run_at_a_time_has_the_folder(tmp_path: Path) -> None:
    with RunFolder(tmp_path / "out").locked():
        with pytest.raises(FolderInUseError, match="out: another run writes here") as caught:
            with RunFolder(tmp_path / "out").locked():
                pass
        assert caught.value.exit_code == 2
        with RunFolder(tmp_path / "elsewhere").locked():
            pass
    with RunFolder(tmp_path / "out").locked():
        pass


def test_a_file_system_that_knows_no_locks_will_do(
    folder: RunFolder, monkeypatch: pytest.MonkeyPatch
) -> None:
    def flock(file: int, operation: int) -> None:
        raise OSError(errno.ENOLCK, "No locks available")

    monkeypatch.setattr(fcntl, "flock", flock)
    with folder.locked():
        pass


def test_logs_of_an_earlier_run_are_set_aside_whatever_their_number(folder: RunFolder) -> None:
    folder.set_aside_logs()
    assert not (folder.root / "logs.previous").exists()  # there was nothing in it
    for run in ("first", "second"):
        folder.create()
        folder.log(7).write_text(run)
        folder.set_aside_logs()
    assert not folder.logs.exists()
    assert (folder.root / "logs.previous" / "rank_7.log").read_text() == "second"


def test_an_earlier_result_is_set_aside(folder: RunFolder) -> None:
    folder.predictions().write_text("first run")
    folder.set_aside_results()
    assert names(folder) == {"predictions.previous.npy": "first run"}


def test_only_the_latest_earlier_result_is_kept(folder: RunFolder) -> None:
    for index in range(2):
        folder.predictions(index, 2).write_text(f"first run, output {index}")
    folder.set_aside_results()
    folder.predictions().write_text("second run")
    folder.set_aside_results()
    assert names(folder) == {"predictions.previous.npy": "second run"}


def test_a_failed_run_does_not_push_out_the_result_before_it(folder: RunFolder) -> None:
    folder.predictions().write_text("first run")
    folder.set_aside_results()
    folder.partial().write_text("second run, which failed")
    folder.set_aside_results()
    assert names(folder) == {"predictions.previous.npy": "first run"}


def test_files_of_other_people_are_left_alone(folder: RunFolder) -> None:
    for name in ("predictions_of_last_year.npy", "other.npy", "predictions_1.txt"):
        (folder.root / name).write_text("mine")
    folder.set_aside_results()
    assert len(list(folder.root.iterdir())) == 3 + 1  # and the logs
