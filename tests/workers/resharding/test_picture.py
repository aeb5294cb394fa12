"""Pictures of who holds what, each drawn by hand."""

from __future__ import annotations

import pytest

from workers.resharding.layout import Layout
from workers.resharding.picture import draw, ranges


def picture(layout: Layout) -> str:
    return "\n".join(draw(layout))


def test_a_cell_names_the_ranks_that_share_it() -> None:
    grid = Layout.from_tensor_map((2, 2, 2), (1, 0))
    assert picture(grid) == (
        "+-----+-----+\n"
        "| 0 4 | 1 5 |\n"
        "+-----+-----+\n"
        "| 2 6 | 3 7 |\n"
        "+-----+-----+"
    )


def test_parts_of_further_dims_stand_in_one_cell() -> None:
    assert picture(Layout((2,), ((), (), (0,)))) == "+-----+\n| 0/1 |\n+-----+"


def test_a_scalar_is_one_cell() -> None:
    assert picture(Layout((4,), ())) == "+-----+\n| 0-3 |\n+-----+"


def test_a_part_without_rows_has_a_cell_of_its_own() -> None:
    uneven = Layout((3,), ((0,),), split_sizes=(3, 0, 5))
    assert picture(uneven) == "+---+\n| 0 |\n+---+\n| 1 |\n+---+\n| 2 |\n+---+"


def test_each_field_shows_its_ranks() -> None:
    fields = Layout((2,), ((0,),), field_size=2)
    assert [line for line in draw(fields) if "|" in line] == ["| 0 |", "| 1 |"] * 2


def test_a_large_grid_is_told_in_words() -> None:
    assert picture(Layout((32,), ((0,), ()))) == "32 x 1 parts on ranks 0-31"
    many_fields = Layout((2,), ((0,),), field_size=1 << 16)
    assert picture(many_fields) == "131072 x 1 parts on ranks 0 1"


def test_many_ranks_at_even_distances_are_told_by_the_first_and_the_last() -> None:
    columns = Layout.from_tensor_map((128, 8), (-1, 0))
    line = picture(columns).splitlines()[1]
    assert line.startswith("| 0 8 ... 1016 | 1 9 ... 1017 |")


@pytest.mark.parametrize(
    "ranks, text",
    [
        ([], ""),
        ([3], "3"),
        ([0, 1], "0 1"),
        ([0, 2, 4, 5, 6, 7], "0 2 4-7"),
        ([*range(0, 40, 3), 50], "0 3 ... 50"),
    ],
)
def test_runs_of_ranks_are_drawn_together(ranks: list[int], text: str) -> None:
    assert ranges(ranks) == text
