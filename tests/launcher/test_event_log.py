"""events.jsonl: what a line holds, and that a full disk ends the log and nothing else."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from launcher.event_log import EventLog
from launcher.events import EngineLost, Event, Exited, Heard, Interrupted, ResultRefused, Tick
from workers.protocol import Done, Failed, PhaseEntered, PredictionDigest, RankReport, Waiting


@pytest.mark.parametrize(
    ("event", "expected"),
    [
        (Heard(PhaseEntered(1, "load"), 7), {"event": "phase", "rank": 1, "phase": "load"}),
        (
            Heard(Failed(1, "load", "OSError", "x" * 9000, "Traceback", 1), 7),
            {"event": "failed", "rank": 1, "phase": "load", "kind": "OSError", "exit_code": 1}
            | {"message": "x" * 2000},
        ),
        (
            Heard(Waiting(0, 1, "AllReduce"), 7),
            {"event": "waiting", "rank": 0, "peer": 1, "doing": "AllReduce"},
        ),
        (
            Heard(Done(1, RankReport({}, 0, 0, 0, batches=3)), 7),
            {"event": "done", "rank": 1, "batches": 3},
        ),
        (
            Exited(1, 0, 11, 7),
            {"event": "exited", "rank": 1, "exit_code": 0, "signal": "SIGSEGV"},
        ),
        (Exited(1, 3, 0, 7), {"event": "exited", "rank": 1, "exit_code": 3, "signal": None}),
        (
            EngineLost(1, "gone", 7, frozenset({2, 1}), "HostLost"),
            {"event": "engine_lost", "kind": "HostLost", "message": "gone", "ranks": [1, 2]},
        ),
        (Interrupted(2, 7), {"event": "interrupted", "signal": "SIGINT"}),
        (
            ResultRefused(None, "OSError", "disk full", 1, 7),
            {"event": "refused", "rank": None, "kind": "OSError", "message": "disk full"},
        ),
    ],
)
def test_a_line_says_what_happened(tmp_path: Path, event: Event, expected: object) -> None:
    with EventLog(tmp_path / "events.jsonl") as log:
        log.note(event)
    line = json.loads((tmp_path / "events.jsonl").read_text())
    assert line.pop("time").endswith("+00:00")
    assert isinstance(line.pop("s"), float)
    assert line == expected


def test_what_is_of_no_interest_is_no_line(tmp_path: Path) -> None:
    with EventLog(tmp_path / "events.jsonl") as log:
        log.note(Tick(7))
        log.note(Heard(PredictionDigest(0, 0, (), (), ()), 7))
    assert (tmp_path / "events.jsonl").read_text() == ""


def test_the_lines_of_a_later_run_come_behind(tmp_path: Path) -> None:
    for run in range(2):
        with EventLog(tmp_path / "events.jsonl") as log:
            log.write("start", ranks=[run])
    lines = (tmp_path / "events.jsonl").read_text().splitlines()
    assert [json.loads(line)["ranks"] for line in lines] == [[0], [1]]


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="no /dev/full to stand for a full disk")
def test_a_full_disk_ends_the_log_and_says_so() -> None:
    with EventLog(Path("/dev/full")) as log:
        log.write("start")
        log.write("end")
        assert log.failure == "No space left on device"
