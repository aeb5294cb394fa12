from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from workers.resharding.region import Region, first_overlap, flat_boxes, row_blocks


def test_shape_and_size_of_a_box() -> None:
    box = Region((2, 0), (5, 4))
    assert box.shape == (3, 4)
    assert box.num_elements == 12


def test_a_scalar_is_a_box_of_one_element() -> None:
    scalar = Region.whole(())
    assert scalar.num_elements == 1
    assert scalar.intersect(scalar) == scalar


@pytest.mark.parametrize(
    ("other", "common"),
    [
        (Region((4, 1), (9, 3)), Region((4, 1), (6, 3))),
        (Region((6, 0), (8, 4)), None),  # they touch, and share nothing
        (Region((3, 2), (3, 4)), None),  # empty
        (Region((0, 0), (9, 9)), Region((2, 0), (6, 4))),
    ],
)
def test_intersection(other: Region, common: Region | None) -> None:
    box = Region((2, 0), (6, 4))
    assert box.intersect(other) == common
    assert other.intersect(box) == common


def test_relative_to_counts_from_the_first_element_of_the_origin() -> None:
    assert Region((4, 3), (6, 5)).relative_to(Region((4, 1), (8, 9))) == Region((0, 2), (2, 4))


def test_slices_cut_the_box_out_of_an_array() -> None:
    array = np.arange(12).reshape(3, 4)
    assert array[Region((1, 2), (3, 4)).as_slices()].tolist() == [[6, 7], [10, 11]]


def test_a_box_prints_like_the_index_that_cuts_it() -> None:
    assert str(Region((1, 2), (3, 4))) == "[1:3, 2:4]"


def test_four_boxes_around_a_hole_do_not_overlap_although_no_line_parts_them() -> None:
    pinwheel = [
        Region((0, 0), (1, 2)),
        Region((0, 2), (2, 3)),
        Region((2, 1), (3, 3)),
        Region((1, 0), (3, 1)),
    ]
    assert first_overlap(pinwheel) is None
    assert first_overlap([*pinwheel, Region((1, 1), (2, 3))]) == (1, 4)


@st.composite
def boxes(draw: st.DrawFn) -> list[Region]:
    def interval() -> tuple[int, int]:
        start = draw(st.integers(0, 5))
        return start, draw(st.integers(start + 1, 6))

    return [
        Region(*zip(*(interval() for _ in range(2)))) for _ in range(draw(st.integers(0, 6)))
    ]


@given(boxes())
def test_first_overlap_agrees_with_painting_every_element(regions: list[Region]) -> None:
    canvas = np.zeros((6, 6), int)
    for region in regions:
        canvas[region.as_slices()] += 1
    found = first_overlap(regions)
    assert (found is None) == (canvas.max(initial=0) <= 1)
    if found is not None:
        assert regions[found[0]].intersect(regions[found[1]]) is not None


@given(st.lists(st.integers(1, 4), max_size=4), st.data())
@settings(max_examples=150)
def test_a_run_of_memory_is_cut_into_boxes_in_its_order(
    shape: list[int], data: st.DataObject
) -> None:
    elements = np.arange(math.prod(shape)).reshape(shape)
    first = data.draw(st.integers(0, elements.size))
    last = data.draw(st.integers(first, elements.size))
    boxes = list(flat_boxes(tuple(shape), first, last))
    found = [number for box in boxes for number in np.ravel(elements[box.as_slices()])]
    assert found == list(range(first, last))
    assert len(boxes) <= max(2 * len(shape) - 1, 1)


def test_a_box_is_moved_along_dim_0_and_into_another_box() -> None:
    box = Region((1, 2), (3, 4))
    assert box.shifted(5) == Region((6, 2), (8, 4))
    assert box.placed_in(Region((10, 20), (15, 30))) == Region((11, 22), (13, 24))
    assert box.placed_in(Region((10, 20), (15, 30))).relative_to(Region((10, 20), (15, 30))) == box


@pytest.mark.parametrize("most", [1, 2, 3, 5, 6, 7, 12, 24, 100])
@pytest.mark.parametrize("shape", [(), (7,), (4, 6), (2, 3, 4), (3, 0)])
def test_blocks_of_rows_are_runs_of_memory_that_make_up_the_tensor(
    shape: tuple[int, ...], most: int
) -> None:
    numbers = np.arange(math.prod(shape)).reshape(shape)
    blocks = [numbers[box.as_slices()].reshape(-1) for box in row_blocks(shape, most)]
    assert np.concatenate(blocks).tolist() == list(range(numbers.size))
    assert all(block.size <= most for block in blocks)
