"""Ranks that are started again after a failure: from where, how often, and after which one."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from launcher.outcome import Outcome, Restarted
from launcher.run_folder import RunFolder

Run = Callable[..., Outcome]
Events = Callable[[], list[dict[str, Any]]]


def test_ranks_go_on_from_the_last_whole_batch_after_one_died(
    run: Run, folder: RunFolder, events: Events
) -> None:
    told: list[Restarted] = []

    def note(news: object) -> None:
        if isinstance(news, Restarted):
            told.append(news)

    outcome = run("DiesOnce", max_restarts=2, watch=note)
    assert (outcome.exit_code, outcome.cause, outcome.batches) == (0, None, 3)
    expected = np.repeat(np.array([0, 10, 20], np.float32), 2)[:, None] * np.ones(3, np.float32)
    np.testing.assert_array_equal(np.load(folder.predictions()), expected)
    (restarted,) = outcome.restarts
    assert told == [restarted]
    cause = restarted.cause
    assert (restarted.number, cause.rank, cause.kind, cause.phase) == (1, 1, "SIGSEGV", "predict")
    assert "in predict" in cause.log.read_text()  # of the attempt before, and it is still there
    assert cause.log.parent != folder.logs
    starts = [event["first_batch"] for event in events() if event["event"] == "start"]
    assert starts == [0, 1]
    assert [event["number"] for event in events() if event["event"] == "restart"] == [1]


def test_ranks_are_not_started_more_often_than_was_asked_for(run: Run, events: Events) -> None:
    outcome = run("Segfaults", max_restarts=1)
    assert outcome.cause is not None
    assert (outcome.exit_code, outcome.cause.kind, len(outcome.restarts)) == (139, "SIGSEGV", 1)
    assert [event["event"] for event in events()].count("start") == 2


def test_what_would_go_wrong_again_is_not_tried_again(run: Run) -> None:
    outcome = run("Disagrees", max_restarts=5)
    assert (outcome.exit_code, outcome.restarts) == (3, ())
