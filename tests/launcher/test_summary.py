"""The end of a run, as a person reads it."""

from __future__ import annotations

import io
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from launcher import summary
from launcher.console import make_console
from launcher.outcome import Restarted, RootCause
from launcher.run_result import Result
from launcher.text import duration, plural, seconds, shape, short, size

MakeResult = Callable[..., Result]


def test_success_names_the_result_and_where_it_lies(
    make_result: MakeResult, tmp_path: Path
) -> None:
    assert summary.success(make_result()) == [
        f"predictions  {tmp_path}/predictions.npy (4 x 3, float32)",
        f"summary      {tmp_path}/summary.json",
        f"logs         {tmp_path}/logs",
        "verified     2 batches by 2 ranks in 2.5 s",
    ]


def test_what_was_checked_and_what_no_file_has_is_told(make_result: MakeResult) -> None:
    result = make_result(checked={"crc": 0, "replicas": 12})
    ranks = [replace(rank, report=replace(rank.report, initial=("h.b",))) for rank in result.ranks]
    result = replace(result, ranks=tuple(ranks))
    assert summary.success(result)[:2] == [
        "checked      crc of nothing: no file carries one, replicas of 12 slices",
        "initial      1 parameter that no file has: h.b",
    ]
    assert result.to_dict()["checked"] == {"crc": 0, "replicas": 12}
    assert result.to_dict()["initial_parameters"] == ["h.b"]


def test_restarts_are_told_and_written_down(make_result: MakeResult, cause: RootCause) -> None:
    result = make_result(restarts=(Restarted(1, cause, batches=2),))
    (line,) = [line for line in summary.success(result) if line.startswith("restarted")]
    assert line.startswith("restarted    rank 1 failed in phase load: ValueError")
    (restarted,) = result.to_dict()["restarts"]
    assert (restarted["number"], restarted["batches"], restarted["cause"]["rank"]) == (1, 2, 1)
    failure = summary.failure(make_result(exit_code=1, cause=cause, restarts=result.restarts))
    assert "the ranks had been restarted 1 time before" in failure


def test_accuracy_comes_first_where_there_are_labels(make_result: MakeResult) -> None:
    assert summary.success(make_result(accuracy=0.75))[0] == "accuracy     75.00% of 4 predictions"


def test_the_table_has_a_row_for_each_rank(make_result: MakeResult) -> None:
    stream = io.StringIO()
    make_console(stream).print(summary.rank_summary(make_result()))
    header, first, second = (line.split() for line in stream.getvalue().splitlines())
    assert header[:4] == ["rank", "device", "context", "layout"]
    assert header[-3:] == ["read", "peak", "memory"]
    row = "localhost:1 50 ms 0 ms 10 ms 0 ms 1.2 s 1.5 KiB 200 MiB"
    assert second == ["1", *row.split()]
    assert first[0] == "0"


def test_the_first_line_of_a_failure_is_its_cause(
    make_result: MakeResult, cause: RootCause
) -> None:
    lines = summary.failure(make_result(exit_code=1, cause=cause, followers=7))
    assert lines[:2] == [
        "failed: rank 1 (10.0.0.7, device 3) in phase load: ValueError (exit code 1)",
        "  shapes (4, 3) and (2, 3) do not match",
    ]
    assert lines[-3].strip() == "frame 39"  # the end of the traceback
    assert lines[-2:] == [
        "log: /out/logs/rank_1.log",
        "7 other ranks merely followed: stopped, or failed because of it",
    ]


def test_ranks_that_failed_with_the_same_error_are_one_line(
    make_result: MakeResult, cause: RootCause
) -> None:
    result = make_result(exit_code=1, cause=replace(cause, alike=(0, 2, 3)), followers=5)
    assert summary.failure(result)[-2:] == [
        "ranks 0, 2-3 failed with the same error",
        "2 other ranks merely followed: stopped, or failed because of it",
    ]


def test_a_failure_is_at_most_25_lines(
    make_result: MakeResult, cause: RootCause, tmp_path: Path
) -> None:
    endless = replace(cause, message="\n".join(map(str, range(100))), alike=(0, 2))
    result = make_result(
        exit_code=1,
        cause=endless,
        followers=7,
        restarts=(Restarted(1, cause, batches=2),),
        partial=tuple(tmp_path / f"predictions_{index}.partial.npy" for index in range(30)),
    )
    lines = summary.failure(result)
    assert len(lines) <= 25
    assert lines[-1].startswith(f"kept: {tmp_path}/predictions_0.partial.npy and 29 files beside")


def test_a_line_of_a_failure_does_not_fill_a_screen(
    make_result: MakeResult, cause: RootCause
) -> None:
    wide = replace(cause, message="x" * 100_000, traceback="y" * 100_000)
    lines = summary.failure(make_result(exit_code=1, cause=wide))
    assert max(map(len, lines)) < 700


def test_a_long_message_is_told_from_its_beginning_and_not_again_by_the_traceback(
    make_result: MakeResult, cause: RootCause
) -> None:
    # MindSpore says first what is wrong, and then where, in sections under lines of dashes.
    dashes = "-" * 40
    sections = ["- C++ Call Stack:", *(f"frame {number}" for number in range(30))]
    message = "\n".join(["the shapes differ", "", dashes, sections[0], dashes, *sections[1:]])
    trace = f"Traceback:\n  File net.py, line 6\n    reshape(x)\nValueError: {message}\n"
    failed = replace(cause, message=message, traceback=trace)
    lines = summary.failure(make_result(exit_code=1, cause=failed))
    assert lines[1:4] == ["  the shapes differ", "  - C++ Call Stack:", "  frame 0"]
    title = lines.index("last lines of its traceback:")
    assert lines[title - 1 : title + 4] == [
        *("  ...", "last lines of its traceback:"),
        *("  Traceback:", "    File net.py, line 6", "      reshape(x)"),
    ]


def test_control_characters_of_a_message_do_not_reach_the_terminal(
    make_result: MakeResult, cause: RootCause
) -> None:
    rude = replace(cause, message="\x1b[2J\x07gone", traceback="\x9b2J")
    lines = summary.failure(make_result(exit_code=1, cause=rude))
    assert lines[1] == r"  \x1b[2J\x07gone"
    assert "".join(lines).isprintable()


def test_bad_input_needs_no_traceback(make_result: MakeResult, cause: RootCause) -> None:
    bad = replace(cause, kind="CoverageError", message="a gap in fc.weight", exit_code=2)
    assert summary.failure(make_result(exit_code=2, cause=bad)) == [
        "failed: rank 1 (10.0.0.7, device 3) in phase load: CoverageError (exit code 2)",
        "  a gap in fc.weight",
        "log: /out/logs/rank_1.log",
    ]


def test_no_rank_is_blamed_for_a_deadline(make_result: MakeResult, cause: RootCause) -> None:
    late = replace(
        cause,
        rank=None,
        server_id=None,
        device_id=None,
        phase=None,
        kind="Deadline",
        message="ranks 2, 5 were still in load after 600 s",
        traceback="",
        exit_code=124,
    )
    lines = summary.failure(make_result(exit_code=124, cause=late, followers=8))
    assert lines == [
        "failed: Deadline (exit code 124)",
        "  ranks 2, 5 were still in load after 600 s",
        "log: /out/logs/rank_1.log",
        "8 ranks had to be stopped",
    ]


def test_what_was_verified_before_a_failure_is_kept_and_named(
    make_result: MakeResult, cause: RootCause, tmp_path: Path
) -> None:
    partial = tmp_path / "predictions.partial.npy"
    result = make_result(exit_code=1, cause=cause, partial=(partial,))
    assert f"kept: {partial} (2 batches that had been verified)" in summary.failure(result)


@pytest.mark.parametrize(
    ("value", "text"),
    [(0, "0 B"), (1023, "1023 B"), (1536, "1.5 KiB"), (3 << 30, "3.0 GiB"), (5 << 40, "5.0 TiB")],
)
def test_sizes(value: int, text: str) -> None:
    assert size(value) == text


@pytest.mark.parametrize(("value", "text"), [(0.0004, "0 ms"), (0.035, "35 ms"), (1.25, "1.2 s")])
def test_durations(value: float, text: str) -> None:
    assert seconds(value) == text


def test_paths_inside_the_working_directory_are_short(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    assert short(tmp_path / "runs" / "1") == "runs/1"
    assert short(Path("/elsewhere/1")) == "/elsewhere/1"


def test_shapes_and_plurals() -> None:
    assert (shape((128, 16)), shape(())) == ("128 x 16", "scalar")
    assert (plural(1, "rank"), plural(2, "batch")) == ("1 rank", "2 batches")


def test_metrics_are_shown_as_mindspore_prints_them(make_result: MakeResult) -> None:
    result = make_result(metrics={"Accuracy": 0.975, "loss": float("nan")})
    assert "metrics      {'Accuracy': 0.975, 'loss': nan}" in summary.success(result)
    assert result.to_dict()["metrics"] == {"Accuracy": 0.975, "loss": None}  # JSON has no NaN


def test_a_summary_keeps_tokens_of_urls_to_itself(make_result, make_job) -> None:
    job = make_job(checkpoint="https://me:hunter2@h/net.ckpt?token=s3cret", strategy="s.ckpt")
    told = make_result(job=job).to_dict()["job"]
    assert told["checkpoint"] == "https://h/net.ckpt"
    assert told["strategy"].endswith("/s.ckpt")


@pytest.mark.parametrize(
    ("value", "text"),
    [(0.4, "0 s"), (119, "119 s"), (150, "2 min"), (5399, "90 min"), (9000, "2.5 h")],
)
def test_what_is_left_is_told_as_people_say_it(value: float, text: str) -> None:
    assert duration(value) == text
