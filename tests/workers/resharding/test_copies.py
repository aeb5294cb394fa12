from __future__ import annotations

import pytest

from workers.resharding.copies import CopyStep, plan_parameter
from workers.resharding.errors import CoverageError, OverlapError
from workers.resharding.layout import Layout
from workers.resharding.region import Region


def rows(start: int, stop: int) -> Region:
    return Region((start, 0), (stop, 2))


def test_four_row_slices_onto_three_ranks() -> None:
    # 12 rows saved as 3+3+3+3, wanted as 4+4+4. Rank 1 of 3 wants rows 4..8:
    #   saved rank 1 holds 3..6 -> its rows 1..3 land in 0..2
    #   saved rank 2 holds 6..9 -> its rows 0..2 land in 2..4
    saved = {rank: rows(3 * rank, 3 * rank + 3) for rank in range(4)}
    assert plan_parameter("w", rows(4, 8), saved) == (
        CopyStep(1, rows(1, 3), rows(0, 2)),
        CopyStep(2, rows(0, 2), rows(2, 4)),
    )


def test_columns_to_rows_takes_a_part_of_every_slice() -> None:
    # 4x4 saved as columns 0..2 and 2..4, wanted: row 3.
    saved = {0: Region((0, 0), (4, 2)), 1: Region((0, 2), (4, 4))}
    assert plan_parameter("w", Region((3, 0), (4, 4)), saved) == (
        CopyStep(0, Region((3, 0), (4, 2)), Region((0, 0), (1, 2))),
        CopyStep(1, Region((3, 0), (4, 2)), Region((0, 2), (1, 4))),
    )


@pytest.mark.parametrize(("nearest", "read"), [(0, 0), (1, 0), (2, 3), (3, 3), (4, 3), (9, 6)])
def test_of_replicas_the_nearest_rank_is_read_and_the_lower_one_in_a_tie(
    nearest: int, read: int
) -> None:
    saved = {rank: rows(0, 2) for rank in (6, 3, 0)}
    (step,) = plan_parameter("w", rows(0, 2), saved, nearest)
    assert step.source_rank == read


def test_a_missing_slice_is_an_error_not_a_block_of_zeros() -> None:
    with pytest.raises(CoverageError, match="w: saved slices cover 4 of 8 elements"):
        plan_parameter("w", rows(0, 4), {0: rows(0, 2), 2: rows(4, 6)})


def test_an_overlap_is_an_error_even_when_the_sizes_add_up() -> None:
    # Rows 0..2 and 1..3 are 2 + 2 of 4 rows, but row 1 comes twice and row 3 never.
    saved = {0: rows(0, 2), 1: rows(1, 3)}
    with pytest.raises(OverlapError, match="ranks 0 and 1 overlap"):
        plan_parameter("w", rows(0, 4), saved)


def test_an_overlap_outside_of_what_is_wanted_does_not_matter() -> None:
    saved = {0: rows(0, 2), 1: rows(2, 5), 2: rows(4, 6)}
    assert [step.source_rank for step in plan_parameter("w", rows(0, 3), saved)] == [0, 1]


def test_nothing_is_read_for_an_empty_box() -> None:
    assert plan_parameter("w", rows(2, 2), {}) == ()


def test_a_scalar_comes_from_one_rank() -> None:
    scalar = Region.whole(())
    assert plan_parameter("step", scalar, {0: scalar, 1: scalar}, 1) == (
        CopyStep(1, scalar, scalar),
    )


def test_64_ranks_of_a_grid_are_planned_from_64_ranks_of_another() -> None:
    # Rows over 64 ranks, from an 8x8 grid: each wanted row block crosses the 8 columns of a row.
    grid = Layout((8, 8), ((0,), (1,))).regions((128, 64))
    by_rows = Layout((64,), ((0,), ())).region(9, (128, 64))  # rows 18..20, in grid row 1
    steps = plan_parameter("w", by_rows, grid, nearest=9)
    assert [step.source_rank for step in steps] == list(range(8, 16))
    assert steps[1] == CopyStep(9, Region((2, 0), (4, 8)), Region((0, 8), (2, 16)))
