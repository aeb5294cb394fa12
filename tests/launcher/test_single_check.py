"""The largest difference between two results, in numbers worked out by hand."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from launcher import single_check
from launcher.outcome import Limits, Outcome, RootCause
from launcher.run_folder import RunFolder
from launcher.single_check import SingleCheckError, compare_with_single, largest_difference
from workers.spec import WorkerSpec

LOG = Path("rank_0.log")


@pytest.fixture
def difference(tmp_path):
    def compare(ours, theirs):
        files = []
        for name, arrays in (("ours", ours), ("theirs", theirs)):
            paths = [tmp_path / f"{name}{i}.npy" for i in range(len(arrays))]
            for path, array in zip(paths, arrays, strict=True):
                np.save(path, array)
            files.append(paths)
        return largest_difference(*files, "one process", LOG)

    return compare


def test_the_difference_is_told_with_its_place_and_relative_to_the_largest_value(difference):
    theirs = np.array([[1, -8], [2, 4]], np.float32)
    found = difference([theirs + np.array([[0, 0], [0.5, 0]], np.float32)], [theirs])
    assert (found.output, found.index, found.absolute) == (0, (1, 0), 0.5)
    assert found.relative == 0.5 / 8
    assert str(found) == "0.5 (0.062 of the largest value), output 0 at [1, 0], beside one process"


def test_of_several_outputs_the_relatively_worst_is_told(difference):
    large, small = np.full(3, 1000.0), np.full(3, 1.0)
    found = difference([large + 1, small + 0.5], [large, small])
    assert (found.output, found.relative) == (1, 0.5)


def test_not_a_number_equals_itself_only(difference):
    nan, one = np.array([np.nan, 1.0]), np.array([1.0, 1.0])
    assert difference([nan], [nan]).absolute == 0
    assert difference([nan], [one]).absolute == np.inf
    assert difference([one], [nan]).absolute == np.inf


def test_infinities_of_one_sign_are_equal(difference):
    up = np.array([np.inf, 2.0], np.float16)
    assert difference([up], [up]).absolute == 0
    assert difference([-up], [up]).absolute == np.inf


@pytest.mark.parametrize("dtype", [np.int64, np.uint8, np.bool_, np.complex64, np.float16])
def test_every_kind_of_number_can_be_compared(difference, dtype):
    ours, theirs = np.array([0, 1, 1]).astype(dtype), np.array([0, 1, 0]).astype(dtype)
    assert difference([ours], [theirs]).index == (2,)
    assert difference([ours], [ours]).absolute == 0


def test_large_integers_keep_their_last_digit(difference):
    largest = np.array([2**63 - 1])
    assert difference([largest - 1], [largest]).absolute == 1


def test_scalars_and_empty_results_are_compared(difference):
    assert difference([np.float32(2)], [np.float32(1)]).index == ()
    assert difference([np.zeros((0, 3))], [np.zeros((0, 3))]).absolute == 0


@pytest.mark.parametrize(
    "ours, theirs",
    [([np.zeros(3)], [np.zeros(4)]), ([np.zeros(3)], [np.zeros(3, "f4")]), ([np.zeros(3)] * 2, [])],
)
def test_results_of_different_kinds_are_no_match(difference, ours, theirs):
    with pytest.raises(SingleCheckError, match="the ranks predicted float64") as caught:
        difference(ours, theirs)
    assert caught.value.exit_code == 3


def test_a_launcher_that_was_told_to_end_tries_no_other_way(tmp_path, monkeypatch):
    cause = RootCause(
        rank=None,
        server_id=None,
        device_id=None,
        phase=None,
        kind="Interrupted",
        message="the launcher was told to end by SIGTERM",
        traceback="",
        log=LOG,
        exit_code=143,
    )
    interrupted = Outcome(
        exit_code=143, cause=cause, followers=1, reports={}, outputs=(), batches=0
    )
    tried = []

    def run_ranks(specs, *_):
        tried.extend(spec.device for spec in specs)
        return interrupted

    monkeypatch.setattr(single_check, "run_ranks", run_ranks)
    spec = WorkerSpec(
        rank=0,
        rank_size=2,
        device_id=0,
        server_id="localhost",
        device="simulated",
        network="net:make",
        predict_data="net:data",
        environment={"DEVICE_ID": "0"},
    )
    limits = Limits(total_s=60, phase_s=60)
    with pytest.raises(SingleCheckError, match="^the launcher was told to end by") as caught:
        compare_with_single(spec, 1, [], RunFolder(tmp_path), limits, 0.01)
    assert caught.value.exit_code == 143
    assert tried == ["single"]
