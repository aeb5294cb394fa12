"""Agreement: who is named when ranks differ, and what is missing at the end."""

from __future__ import annotations

import pickle

import numpy as np
import pytest

from launcher.agreement import Agreement, VerificationError
from workers.protocol import PredictionDigest, RankReport


def says(rank: int, batch: int, *outputs: np.ndarray) -> PredictionDigest:
    return PredictionDigest.of(rank, batch, outputs)


def report(batches: int) -> RankReport:
    return RankReport({}, 0, 0, 0, batches)


ONES = np.ones((2, 3), np.float32)


def test_a_batch_counts_once_all_ranks_agree_on_it() -> None:
    agreement = Agreement(range(3))
    agreement.add(says(0, 0, ONES))
    agreement.add(says(0, 1, ONES))  # a rank may be ahead
    agreement.add(says(2, 0, ONES))
    assert agreement.batches == 0
    agreement.add(says(1, 0, ONES))
    assert agreement.batches == 1


@pytest.mark.parametrize(
    ("odd", "difference"),
    [
        ((ONES * 2,), "output 0 has values with checksum"),
        ((ONES.astype(np.float64),), "output 0 has dtype float64; but rank 0: .* float32"),
        ((ONES[:1],), r"output 0 has shape \(1, 3\); but rank 0: .* \(2, 3\)"),
        ((ONES, ONES), "2 outputs; but rank 0: 1 outputs"),
    ],
    ids=["values", "dtype", "shape", "count"],
)
def test_the_odd_one_out_is_named_with_what_differs(
    odd: tuple[np.ndarray, ...], difference: str
) -> None:
    agreement = Agreement(range(3))
    agreement.add(says(1, 0, *odd))
    agreement.add(says(0, 0, ONES))
    with pytest.raises(VerificationError, match=f"batch 0: rank 1 says: {difference}") as caught:
        agreement.add(says(2, 0, ONES))
    assert (caught.value.rank, caught.value.batch, caught.value.exit_code) == (1, 0, 3)
    assert agreement.batches == 0


def test_ranks_that_were_given_different_data_are_told_so() -> None:
    # Each rank's output is gathered from all: equal everywhere, and still of no use.
    agreement = Agreement(range(2))
    agreement.add(PredictionDigest.of(0, 0, [ONES], inputs="aa"))
    with pytest.raises(VerificationError, match="inputs with checksum bb.*do not shard the data"):
        agreement.add(PredictionDigest.of(1, 0, [ONES], inputs="bb"))


def test_of_two_ranks_that_differ_the_owner_is_not_the_odd_one() -> None:
    agreement = Agreement(range(2))
    agreement.add(says(1, 0, ONES))
    with pytest.raises(VerificationError) as caught:
        agreement.add(says(0, 0, ONES * 2))
    assert caught.value.rank == 1


def test_a_batch_that_comes_twice_or_too_early_is_refused() -> None:
    agreement = Agreement(range(2))
    agreement.add(says(0, 0, ONES))
    with pytest.raises(VerificationError, match="batch 0: rank 0 .* where batch 1 was due"):
        agreement.add(says(0, 0, ONES))
    with pytest.raises(VerificationError, match="batch 1: rank 1 .* where batch 0 was due"):
        agreement.add(says(1, 1, ONES))


def test_a_rank_with_fewer_batches_is_an_error_that_names_the_missing_one() -> None:
    agreement = Agreement(range(2))
    for rank, batch in ((0, 0), (1, 0), (0, 1)):
        agreement.add(says(rank, batch, ONES))
    with pytest.raises(VerificationError, match="batch 1: rank 1 .* has 1 of 2 batches"):
        agreement.finish({0: report(2), 1: report(1)})


def test_a_batch_that_got_lost_on_the_way_is_an_error() -> None:
    agreement = Agreement(range(1))
    agreement.add(says(0, 0, ONES))
    with pytest.raises(VerificationError, match="rank 0 predicted 2 batches, but 1 arrived"):
        agreement.finish({0: report(2)})


def test_a_rank_that_never_said_done_is_an_error() -> None:
    agreement = Agreement(range(2))
    for rank in range(2):
        agreement.add(says(rank, 0, ONES))
    with pytest.raises(VerificationError, match="rank 1 is missing"):
        agreement.finish({0: report(1)})


def test_no_batch_at_all_is_an_error() -> None:
    with pytest.raises(VerificationError, match="rank 0 did not predict it: it has 0 of 1"):
        Agreement(range(1)).finish({0: report(0)})


def test_the_error_travels_between_processes() -> None:
    error = VerificationError(2, 4, "differs")
    assert str(pickle.loads(pickle.dumps(error))) == "batch 4: rank 2 differs"
