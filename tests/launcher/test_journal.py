"""How far a run has come: what a later run believes, and what it does not."""

from __future__ import annotations

from contextlib import closing
from pathlib import Path

import pytest

from launcher import journal
from launcher.errors import JobError
from launcher.journal import NOTHING, Journal, Reached, read_reached

RUN = {"network": "net:make", "rank_size": 8, "strategy": None}
REACHED = Reached(batches=3, rows=(12, 3), inputs="abc")


@pytest.fixture
def path(tmp_path: Path) -> Path:
    path = tmp_path / "progress.json"
    with closing(Journal(path, RUN, NOTHING)) as file:
        file.write(Reached(2, (8, 2), "a longer checksum"))
        file.write(REACHED)
    return path


def test_the_latest_word_counts(path: Path) -> None:
    assert read_reached(path, RUN) == REACHED


def test_a_run_that_goes_on_may_be_killed_before_it_gets_further(path: Path) -> None:
    Journal(path, RUN, REACHED).close()
    assert read_reached(path, RUN) == REACHED


def test_the_file_of_another_run_is_not_gone_on_from(path: Path) -> None:
    with pytest.raises(JobError, match="had rank_size 8, not 4; start over without it") as caught:
        read_reached(path, RUN | {"rank_size": 4})
    assert caught.value.exit_code == 2


def test_what_was_written_before_a_power_cut_is_not_trusted(
    path: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "boot_id").write_text("another boot\n")
    monkeypatch.setattr(journal, "_BOOT_ID", tmp_path / "boot_id")
    with pytest.raises(JobError, match="the machine was restarted"):
        read_reached(path, RUN)


@pytest.mark.parametrize("text", [None, "", "{}\n{}\n", "no JSON\n", '{"batches": 1}\n'])
def test_without_a_word_a_run_starts_over(tmp_path: Path, text: str | None) -> None:
    path = tmp_path / "progress.json"
    if text is not None:
        path.write_text(text)
    assert read_reached(path, RUN) == NOTHING


def test_a_run_of_hundreds_of_outputs_starts_over(path: Path) -> None:
    with closing(Journal(path, RUN, NOTHING)) as file:
        file.write(Reached(3, (10**9,) * 1000, "abc"))
    assert read_reached(path, RUN) == NOTHING


def test_batches_of_one_size_are_known_by_their_number() -> None:
    assert Reached(3, (12, 6), "").uniform_ends() == (range(4, 13, 4), range(2, 7, 2))
    assert NOTHING.uniform_ends() == ()
