"""Progress: what is said about ranks while a run goes on."""

from __future__ import annotations

import io
from collections.abc import Iterator

import pytest
from rich.console import Console

from launcher.outcome import Restarted, Resumed, RootCause
from launcher.progress import Board, Progress
from workers.protocol import (
    PHASES,
    Done,
    Expected,
    Failed,
    Fetched,
    PhaseEntered,
    Prediction,
    RankReport,
)
from workers.spec import WorkerSpec

Specs = tuple[WorkerSpec, ...]


def test_a_phase_is_told_once_when_the_last_rank_enters_it() -> None:
    board = Board(ranks=2)
    assert board.note(PhaseEntered(1, "load"), 0.5) == []
    assert board.note(PhaseEntered(0, "load"), 0.7) == ["   0.7 s  load begins on 2 ranks"]


def test_a_rank_that_lags_is_named() -> None:
    board = Board(ranks=3)
    board.note(PhaseEntered(0, "compile"), 1.0)
    board.note(PhaseEntered(2, "compile"), 1.1)
    lines = board.note(PhaseEntered(1, "compile"), 4.5)
    assert lines == ["   4.5 s  compile begins on 3 ranks, rank 1 3.5 s after the first"]


def test_a_failure_is_told_at_once_in_one_line() -> None:
    failed = Failed(1, "load", "CoverageError", "a gap\nand more", "Traceback ...", 2)
    assert Board(ranks=2).note(failed, 2.0) == [
        "   2.0 s  rank 1 failed in load: CoverageError: a gap"
    ]


def test_a_failure_of_endless_words_does_not_fill_the_screen() -> None:
    (line,) = Board(ranks=2).note(Failed(1, "load", "OSError", "x" * 10_000, "", 1), 2.0)
    assert len(line) < 700


def test_the_same_failure_of_other_ranks_is_not_told_again() -> None:
    board = Board(ranks=8)
    lines = [board.note(Failed(rank, "load", "OSError", "gone", "", 1), 2.0) for rank in range(8)]
    assert lines == [["   2.0 s  rank 0 failed in load: OSError: gone"], *[[]] * 7]


def test_ranks_that_lost_a_peer_are_one_line_whatever_they_were_doing() -> None:
    board = Board(ranks=8)
    lines = [
        board.note(Failed(rank, "predict", "PeerLostError", f"in {rank}", "", 1, echo_of=7), 2.0)
        for rank in range(7)
    ]
    assert lines == [["   2.0 s  rank 0 failed in predict: PeerLostError: in 0"], *[[]] * 6]


def test_lines_go_to_a_stream_that_is_no_terminal(specs: Specs) -> None:
    stream = io.StringIO()
    clock = iter([10.0, 10.5, 11.0])
    with Progress(Console(file=stream, width=40), specs, lambda: next(clock)) as progress:
        progress.watch(PhaseEntered(0, "started"))
        progress.watch(PhaseEntered(1, "started"))
    assert stream.getvalue() == "   1.0 s  2 ranks started\n"


def test_a_restart_is_told_and_the_ranks_are_counted_anew(specs: Specs, cause: RootCause) -> None:
    stream = io.StringIO()
    with Progress(Console(file=stream, width=40), specs, lambda: 2.0) as progress:
        for rank in range(2):
            progress.watch(PhaseEntered(rank, "load"))
        progress.watch(Restarted(1, cause, batches=1))
        for rank in range(2):
            progress.watch(PhaseEntered(rank, "load"))
    assert stream.getvalue().splitlines() == [
        "   0.0 s  load begins on 2 ranks",
        "   0.0 s  restart 1: rank 1 failed in phase load: ValueError: shapes (4, 3) and (2, 3) do"
        " not match; kept 1 verified batch",
        "   0.0 s  load begins on 2 ranks",
    ]


@pytest.mark.parametrize(
    ("batches", "told"), [(2, "2 verified batches"), (1, "1 verified batch"), (0, "nothing")]
)
def test_what_a_run_goes_on_from_is_told(specs: Specs, batches: int, told: str) -> None:
    stream = io.StringIO()
    with Progress(Console(file=stream), specs, lambda: 2.0) as progress:
        progress.watch(Resumed(batches))
    assert stream.getvalue() == f"   0.0 s  resume: {told} of an earlier run\n"


def test_the_live_table_shows_the_time_of_each_phase(specs: Specs) -> None:
    now_s = 0.0
    progress = Progress(Console(file=io.StringIO()), specs, lambda: now_s)
    report = RankReport({}, bytes_read=0, bytes_held=0, peak_memory_bytes=0, batches=1)
    events = [
        (1.0, PhaseEntered(0, "context")),
        (1.0, PhaseEntered(1, "context")),
        (3.5, PhaseEntered(0, "layout")),
        (4.0, Failed(1, "context", "ValueError", "no", "", 1)),
        (4.5, Prediction(0, 0, ())),
        (5.0, Done(0, report)),
    ]
    for at_s, message in events:
        now_s = at_s
        progress.watch(message)
    rows = drawn(progress)
    assert next(rows).split() == ["rank", "device", *PHASES[1:-1]]
    assert next(rows).split() == ["0", "localhost:0", "2.5", "s", "1.5", "s", "·", "·", "·"]
    assert next(rows).split() == ["1", "localhost:1", "failed", "·", "·", "·", "·"]
    assert next(rows).strip() == "5 s, 1 batch"


def drawn(progress: Progress) -> Iterator[str]:
    console = Console(file=io.StringIO(), width=100, record=True)
    console.print(progress)
    return iter(console.export_text().splitlines())


def test_the_live_table_leaves_a_terminal_as_it_was(specs: Specs) -> None:
    stream = io.StringIO()
    console = Console(file=stream, width=100, force_terminal=True)
    with Progress(console, specs) as progress:
        progress.watch(PhaseEntered(0, "context"))
    assert "localhost:0" in stream.getvalue()
    assert stream.getvalue().endswith("\x1b[2K")  # the last line of the table is erased


def test_the_rate_and_the_time_that_is_left_are_told(specs: Specs) -> None:
    board = Board(2)
    board.note(Expected(0, 12), 1.0)
    lines = [line for n in range(7) for line in board.note(Prediction(0, n, ()), 2.0 + 4 * n)]
    # one batch in 4 s; a line at most every 10 s
    assert lines == [
        "  14.0 s  predict  4 of 12 batches, 0.25 a second, 32 s left",
        "  26.0 s  predict  7 of 12 batches, 0.25 a second, 20 s left",
    ]


def test_a_long_download_is_told_in_lines_for_all_ranks(specs: Specs) -> None:
    board = Board(2)
    assert board.note(Fetched(0, 1 << 20, 4 << 20), 3.0) == []
    assert board.note(Fetched(1, 2 << 20, 4 << 20), 12.0) == [
        "  12.0 s  load     3.0 MiB of 8.0 MiB fetched"
    ]
    assert board.note(Fetched(0, 3 << 20, 4 << 20), 15.0) == []


def test_batches_that_nobody_counted_have_a_rate_but_no_end() -> None:
    board = Board(1)
    board.note(Prediction(0, 0, ()), 1.0)
    assert board.pace(1.0) == "1 batch"
    board.note(Prediction(0, 1, ()), 1.5)
    assert board.pace(1.5) == "2 batches, 2 a second"


def test_the_shares_of_all_ranks_are_counted() -> None:
    board = Board(2)
    for rank, batches in ((0, 3), (1, 2)):
        board.note(Expected(rank, batches), 1.0)
    assert board.total == 5
