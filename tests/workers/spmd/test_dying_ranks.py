"""A rank that is killed inside a collective frees the others; nothing that was shared is left."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

HERE = Path(__file__).parent


def ranks(step):
    """Return what each rank said that was not killed."""
    command = [sys.executable, str(HERE / "dying_ranks.py"), step]
    env = {**os.environ, "PYTHONPATH": str(HERE.parents[2])}
    done = subprocess.run(command, env=env, capture_output=True, text=True, timeout=60, check=True)
    return dict(map(json.loads, done.stdout.splitlines()))


@pytest.mark.parametrize(
    "step, dead",
    [
        ("instead of sharing memory", 0),
        ("before it gets its memory", 1),
        ("before it writes", 1),
        ("after it wrote", 1),
        ("at the gate", 1),
        ("before it passes the gate", 1),
        ("past the gate", 1),
        ("with the gate half open", 1),
    ],
)
def test_a_rank_killed_in_a_collective_frees_the_others_at_once(step, dead):
    said = ranks(step)
    assert sorted(said) == sorted({0, 1, 2, 3} - {dead})
    # Who hears of another rank's end first gives up, which is an echo of the same loss.
    assert all(text.startswith("PeerLostError") for text in said.values())
    assert any(f"rank {dead} is gone" in text for text in said.values())


def test_all_that_ranks_share_is_anonymous_and_given_back():
    for text in ranks("none").values():
        shared, still_open = json.loads(text)
        assert shared == ["/memfd"]
        assert still_open == []
