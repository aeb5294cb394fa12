from __future__ import annotations

import numpy as np
import pytest

from workers.resharding.region import Region


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
