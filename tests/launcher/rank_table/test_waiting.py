"""A table that somebody is still filling in."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from launcher.errors import RankTableError
from launcher.rank_table.reading import Reading, read_rank_table
from launcher.rank_table.waiting import RankTableTimeout, await_table, load_rank_table

INITIALIZING = '{"status": "initializing"}'
COMPLETED = """{"status": "completed", "version": "1.0", "server_list": [
    {"server_id": "a", "device": [{"device_id": "0", "rank_id": "0", "device_ip": "10.0.0.1"}]}]}"""


class Somebody:
    """Who fills in a table: its texts, one after the other, on a clock that sleeping moves."""

    def __init__(self, *texts: str) -> None:
        self.texts: Iterator[str] = iter(texts)
        self.now_s = 100.0
        self.said: list[str] = []

    def wait(self, limit_s: float) -> Reading:
        return await_table(
            lambda: read_rank_table(next(self.texts)),
            "hccl.json",
            limit_s,
            self.said.append,
            lambda: self.now_s,
            self._sleep,
        )

    def _sleep(self, seconds: float) -> None:
        self.now_s += seconds


def test_a_table_that_is_filled_in_is_not_waited_for() -> None:
    somebody = Somebody(COMPLETED)
    assert somebody.wait(600).table is not None
    assert (somebody.now_s, somebody.said) == (100.0, [])


def test_a_table_is_read_each_second_until_it_is_filled_in() -> None:
    somebody = Somebody(INITIALIZING, INITIALIZING, INITIALIZING, COMPLETED)
    assert somebody.wait(600).table is not None
    assert somebody.now_s == 103.0
    assert somebody.said == ["waiting for hccl.json to be filled in: 0 s of 600 s"]


def test_a_line_tells_of_the_waiting_every_ten_seconds() -> None:
    somebody = Somebody(*[INITIALIZING] * 25, COMPLETED)
    somebody.wait(600)
    assert [line.rpartition(": ")[2] for line in somebody.said] == [
        "0 s of 600 s",
        "10 s of 600 s",
        "20 s of 600 s",
    ]


def test_waiting_ends_at_its_limit() -> None:
    somebody = Somebody(*[INITIALIZING] * 4)
    assert somebody.wait(2.5).initializing
    assert somebody.now_s == 102.5


def test_a_table_that_is_half_written_is_read_again() -> None:
    somebody = Somebody(INITIALIZING, COMPLETED[:40], "", COMPLETED)
    assert somebody.wait(600).table is not None


def test_a_table_that_is_broken_from_the_start_is_not_waited_for() -> None:
    assert Somebody(COMPLETED[:40]).wait(600).table is None


def test_a_table_that_is_filled_in_wrongly_is_not_waited_for() -> None:
    broken = COMPLETED.replace('"rank_id": "0"', '"rank_id": 0')
    assert Somebody(INITIALIZING, broken).wait(600).errors[0].code == "EI0017"


def test_the_time_is_over_with_the_exit_code_of_a_deadline(tmp_path: Path) -> None:
    path = tmp_path / "hccl.json"
    path.write_text(INITIALIZING)
    with pytest.raises(RankTableTimeout, match="still 'initializing' after 0 s") as caught:
        load_rank_table(path, 0.0, lambda line: None)
    assert caught.value.exit_code == 124


@pytest.mark.parametrize("content", [b"\xff", None])
def test_a_file_that_cannot_be_read_is_named(tmp_path: Path, content: bytes | None) -> None:
    path = tmp_path / "hccl.json"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(RankTableError, match=f"^{path}: .*rank_tables/ holds examples"):
        load_rank_table(path, 0.0, lambda line: None)


def test_the_warnings_of_a_table_are_told(tmp_path: Path) -> None:
    said: list[str] = []
    table = tmp_path / "hccl.json"
    table.write_text(COMPLETED.replace('{"status"', '{"status": "completed", "status"'))
    load_rank_table(table, 0.0, said.append)
    (line,) = [line for line in said if "twice" in line]
    assert line.startswith(f"{table}: warning: ")
