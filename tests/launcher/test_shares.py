"""Shares of the data: together they are the whole, each row once, or the result is refused."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from launcher.agreement import VerificationError
from launcher.shares import Shares
from workers.protocol import RankReport, Rows


def report(batches: int, samples: int | None, seen: str = "x") -> RankReport:
    return RankReport({}, 0, 0, 0, batches, samples=samples, seen=seen)


def refusal(shares: Shares, reports: Mapping[int, RankReport]) -> str:
    with pytest.raises(VerificationError) as caught:
        shares.finish(reports)
    return str(caught.value)


@given(st.data())
def test_batches_dealt_to_ranks_are_whole_in_whatever_order_they_come(data: Any) -> None:
    sizes = data.draw(st.lists(st.integers(1, 4), min_size=1, max_size=12))
    ranks = data.draw(st.integers(1, 5))
    shares, delivered = Shares(range(ranks)), [0] * ranks
    ends = [sum(sizes[: number + 1]) for number in range(len(sizes))]
    left = {rank: list(range(rank, len(sizes), ranks)) for rank in range(ranks)}
    while waiting := [rank for rank in left if left[rank]]:
        rank = data.draw(st.sampled_from(waiting))
        number = left[rank].pop(0)
        start = ends[number] - sizes[number]
        shares.add(rank, delivered[rank], Rows(start), sizes[number])
        delivered[rank] += 1
        missing = [min(numbers) for numbers in left.values() if numbers]
        assert shares.rows == (ends[min(missing)] - sizes[min(missing)] if missing else ends[-1])
    shares.finish({rank: report(delivered[rank], ends[-1]) for rank in range(ranks)})
    assert list(shares.batch_ends) == ends
    assert shares.batches == len(sizes)


@given(samples=st.integers(1, 30), ranks=st.integers(2, 5), filled_up=st.booleans())
def test_interleaved_samples_are_whole(samples: int, ranks: int, filled_up: bool) -> None:
    shares = Shares(range(ranks))
    for rank in range(ranks):
        count = -(-samples // ranks) if filled_up else len(range(rank, samples, ranks))
        if count:
            shares.add(rank, 0, Rows(rank, ranks), count)
    batches = {rank: int(filled_up or rank < samples) for rank in range(ranks)}
    shares.finish({r: report(batches[r], samples if filled_up else None) for r in range(ranks)})
    assert shares.rows == samples


def test_shards_smaller_than_a_batch_are_measured_in_batches_of_the_whole() -> None:
    # 6 samples in batches of 4: each of three shards has 2, and one process 4 and 2.
    shares = Shares(range(3))
    for rank in range(3):
        shares.add(rank, 0, Rows(rank, step=3), 2)
    shares.finish(dict.fromkeys(range(3), replace(report(1, 6), batch_rows=4)))
    assert shares.batch_ends == [4, 6]


@pytest.mark.parametrize(
    ("labelled", "expected"),
    [(False, [(0, 0), (1, 4), (2, 8), (3, 13), (4, 16)]), (True, [(0, 0), (1, 4), (2, 8)])],
)
def test_an_evaluation_goes_on_from_where_batches_had_one_size(
    labelled: bool, expected: list[tuple[int, int]]
) -> None:
    sizes = [4, 4, 5, 3, 4]  # after 4 batches the mean is 4 again
    shares, reached = Shares([0], labelled=labelled), []
    for number, size in enumerate(sizes):
        shares.add(0, number, Rows(sum(sizes[:number])), size)
        found = shares.reached(1)
        reached.append((found.batches, *found.rows))
    assert reached == expected + expected[-1:] * (len(sizes) - len(expected))


def test_a_missing_batch_is_named() -> None:
    shares = Shares([0, 1])
    shares.add(0, 0, Rows(0), 2)
    shares.add(0, 1, Rows(4), 2)
    said = refusal(shares, {0: report(2, 6), 1: report(0, 6)})
    assert said == "batch 0: rank 1 left a gap: of 6 rows the first 2 are there"


def test_ranks_that_saw_different_data_are_named() -> None:
    shares = Shares([0, 1])
    shares.add(0, 0, Rows(0), 2)
    shares.add(1, 0, Rows(2), 2)
    said = refusal(shares, {0: report(1, 4), 1: report(1, 4, seen="y")})
    assert "rank 1 was given other data than rank 0; every rank must be given the same" in said


def test_rows_that_were_there_already_are_refused() -> None:
    shares = Shares([0, 1])
    shares.add(0, 0, Rows(0), 2)
    with pytest.raises(VerificationError, match="has row 1, which was there already"):
        shares.add(1, 0, Rows(1), 2)


@pytest.mark.parametrize("counts", [(3, 1), (2, 3), (4, 0)])
def test_shards_of_other_sizes_than_their_shares_are_refused(counts: tuple[int, int]) -> None:
    shares = Shares([0, 1])
    for rank, count in enumerate(counts):
        if count:
            shares.add(rank, 0, Rows(rank, 2), count)
    said = refusal(shares, {rank: report(int(n > 0), None) for rank, n in enumerate(counts)})
    assert "are its share; data callables that take num_shards" in said


def test_a_dropped_remainder_is_found() -> None:
    # 7 samples on 2 ranks: batches of 2 that drop the remainder leave 2 and 2 of 4 and 3.
    shares = Shares([0, 1])
    for rank in (0, 1):
        shares.add(rank, 0, Rows(rank, 2), 2)
    assert "has 2 of 7 samples" in refusal(shares, {rank: report(1, 7) for rank in (0, 1)})


def test_batches_come_in_the_order_of_their_rank() -> None:
    with pytest.raises(VerificationError, match="where batch 0 was due"):
        Shares([0, 1]).add(0, 1, Rows(0), 2)
    with pytest.raises(VerificationError, match="is not of its share"):
        Shares([0, 1]).add(0, 0, Rows(1, 2), 2)


def test_a_rank_that_said_less_than_it_sent_is_named() -> None:
    shares = Shares([0, 1])
    shares.add(0, 0, Rows(0), 2)
    assert "rank 1 is missing" in refusal(shares, {0: report(1, 2)})
    assert "predicted 2 batches, but 1 arrived" in refusal(
        shares, {0: report(2, 2), 1: report(0, 2)}
    )
