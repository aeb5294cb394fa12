"""What ranks print, as it is shown: folded where they say the same, bounded where they say much."""

from __future__ import annotations

from collections import deque
from pathlib import Path

import pytest

from launcher.errors import JobError
from launcher.job import Job
from launcher.outcome import Restarted, RootCause
from launcher.tee import Follower, Tee, chosen_ranks, fold
from workers.protocol import PhaseEntered


def folded(*queues: str, due: dict[int, int] | None = None) -> list[str]:
    lines = {rank: deque(queue) for rank, queue in enumerate(queues)}
    everything = {rank: len(queue) for rank, queue in lines.items()}
    return list(fold(lines, due if due is not None else everything))


def test_what_ranks_print_alike_is_one_line() -> None:
    assert folded("a", "a", "a") == ["ranks 0-2| a"]


def test_lines_of_their_own_do_not_keep_ranks_from_being_folded() -> None:
    # 0 prints x a b, 1 prints y a b: a waits until rank 1 is done with y
    assert folded("xab", "yab") == ["rank 0| x", "rank 1| y", "ranks 0-1| a", "ranks 0-1| b"]


def test_the_order_of_each_rank_is_kept_where_they_differ() -> None:
    assert folded("ab", "ba") == ["rank 0| a", "ranks 0-1| b", "rank 1| a"]


def test_a_line_that_is_repeated_is_shown_as_often() -> None:
    assert folded("aa", "a") == ["ranks 0-1| a", "rank 0| a"]


def test_lines_that_are_not_due_wait_for_their_likes_of_other_ranks() -> None:
    assert folded("ab", "a", due={0: 0, 1: 1}) == ["ranks 0-1| a"]
    assert folded("ab", "c", due={0: 0, 1: 1}) == ["rank 1| c"]


def test_a_follower_gives_whole_lines_and_the_rest_in_the_end(tmp_path: Path) -> None:
    log, follower = tmp_path / "rank_0.log", Follower(tmp_path / "rank_0.log")
    assert list(follower.lines()) == []  # there is no file yet
    with log.open("w", buffering=1) as file:
        file.write("one\ntw")
        assert list(follower.lines()) == ["one"]
        file.write("o\n10 %\r20 %\r\nend")
        file.flush()
        assert list(follower.lines()) == ["two", "20 %"]
    assert list(follower.rest()) == ["end"]


def test_what_would_command_the_terminal_is_taken_out(tmp_path: Path) -> None:
    log, follower = tmp_path / "rank_0.log", Follower(tmp_path / "rank_0.log")
    log.write_bytes(b"\x1b[31mred\x1b[0m\tand \x1b[2Ago\x07\n")
    assert list(follower.lines()) == ["red\tand go\\x07"]


def test_a_follower_goes_over_to_a_new_file_of_the_name(tmp_path: Path) -> None:
    log, follower = tmp_path / "rank_0.log", Follower(tmp_path / "rank_0.log")
    log.write_text("one\n")
    assert list(follower.lines()) == ["one"]
    with log.open("a") as file:
        file.write("last words")
    log.rename(tmp_path / "aside.log")
    log.write_text("two\n")
    assert list(follower.lines()) == ["last words", "two"]


def test_a_flood_is_left_to_the_log(tmp_path: Path) -> None:
    log, follower = tmp_path / "rank_0.log", Follower(tmp_path / "rank_0.log")
    log.write_text("x\n" * (2 << 20))
    skipped, *shown = follower.lines()
    assert skipped == f"... 3.0 MiB more, see {log}"
    assert len(shown) == 1 << 15
    assert list(follower.rest())[-1].startswith("... ")


def test_a_line_without_end_is_cut(tmp_path: Path) -> None:
    log, follower = tmp_path / "rank_0.log", Follower(tmp_path / "rank_0.log")
    log.write_text("x" * (1 << 18))
    found = [line for _ in range(4) for line in follower.lines()]
    assert found and all(line.startswith("x") and len(line) < 2100 for line in found)


def test_logs_are_followed_from_the_first_word_of_their_rank(
    tmp_path: Path, cause: RootCause
) -> None:
    shown: list[str] = []
    logs = {rank: tmp_path / f"rank_{rank}.log" for rank in range(2)}
    for log in logs.values():
        log.write_text("of an earlier run\n")
    tee = Tee(logs, shown.append)
    tee.look()
    tee.look()
    assert shown == []
    with tee:
        for rank, log in logs.items():
            log.write_text("of this run\n")
            tee.watch(PhaseEntered(rank, "started"))
        tee.watch(Restarted(1, cause, 0))
    assert shown == ["ranks 0-1| of this run"]


@pytest.mark.parametrize(
    ("text", "ranks"), [("0,3", [0, 3]), ("1-3", [1, 2, 3]), ("2,0-1,2", [0, 1, 2])]
)
def test_ranks_are_chosen_by_numbers_and_ranges(text: str, ranks: list[int]) -> None:
    assert chosen_ranks(text, 4) == ranks


def test_all_ranks_can_be_chosen() -> None:
    assert list(chosen_ranks("all", 3)) == [0, 1, 2]


def test_a_rank_that_there_is_not_is_an_error() -> None:
    with pytest.raises(JobError, match="tee: there is no rank 8; name 0 to 7"):
        chosen_ranks("0-8", 8)
    # these would fit no memory
    with pytest.raises(JobError, match=f"tee: there is no rank {10**30}; name 0 to 7"):
        chosen_ranks(f"3,0-{10**30}", 8)


@pytest.mark.parametrize(("given", "kept"), [(3, "3"), ([0, 3], "0,3"), ("all", "all")])
def test_a_job_names_ranks_as_people_write_them(given: object, kept: str) -> None:
    job = Job.model_validate({"network": "net:make", "predict_data": "net:data", "tee": given})
    assert job.tee == kept


@pytest.mark.parametrize("given", ["", "x", "1-x", "3-1", -1])
def test_what_names_no_rank_is_refused(given: object) -> None:
    with pytest.raises(ValueError, match="names no ranks"):
        Job.model_validate({"network": "net:make", "predict_data": "net:data", "tee": given})
