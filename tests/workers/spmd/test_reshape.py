"""Which splits survive a reshape."""

from __future__ import annotations

import math

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from workers.resharding.layout import Layout
from workers.spmd.reshape import through_reshape


def test_rows_of_a_batch_stay_rows_when_sequence_and_batch_are_joined():
    layout = Layout((2, 4), ((0,), (), (1,)))  # (batch, seq, hidden), hidden split by 4
    kept, gained = through_reshape(layout, (4, 8, 64), (32, 64))
    assert kept == layout
    assert gained.axes == ((0,), (1,))


def test_a_split_hidden_dimension_becomes_split_heads():
    layout = Layout((2, 4), ((0,), (1,)))
    kept, gained = through_reshape(layout, (32, 64), (4, 8, 8, 8))
    assert kept == layout
    assert gained.axes == ((0,), (), (1,), ())


def test_heads_that_four_devices_do_not_divide_are_gathered():
    layout = Layout((2, 4), ((0,), (1,)))
    kept, gained = through_reshape(layout, (32, 60), (32, 2, 30))
    assert kept.axes == ((0,), ())
    assert gained.axes == ((0,), (), ())


def test_a_split_across_rows_is_gathered_before_rows_are_joined():
    # (4, 8) with columns split: rank 0 holds columns 0..4 of every row, no contiguous run.
    kept, gained = through_reshape(Layout((2,), ((), (0,))), (4, 8), (32,))
    assert kept.axes == ((), ())
    assert gained.axes == ((),)


def test_rows_cut_into_single_ones_let_the_next_dimension_keep_its_split():
    kept, gained = through_reshape(Layout((4, 2), ((0,), (1,))), (4, 8), (32,))
    assert kept.axes == ((0,), (1,))
    assert gained.axes == ((0, 1),)


def test_dimensions_of_size_one_come_and_go():
    kept, gained = through_reshape(Layout((2,), ((), (0,))), (1, 4), (4, 1, 1))
    assert kept.axes == ((), (0,))
    assert gained.axes == ((0,), (), ())


@st.composite
def _cases(draw):
    matrix = tuple(draw(st.lists(st.sampled_from([2, 3]), min_size=1, max_size=3)))
    factors = draw(st.lists(st.sampled_from([1, 2, 3, 4, 6]), min_size=1, max_size=5))

    def grouped(parts):
        shape, current = [], 1
        for factor in parts:
            current *= factor
            if draw(st.booleans()):
                shape.append(current)
                current = 1
        return (*shape, current)

    source, target = grouped(factors), grouped(factors)
    axes, free = [], list(range(len(matrix)))
    for size in source:
        mine = []
        while free and size % math.prod(matrix[a] for a in [*mine, free[0]]) == 0:
            if not draw(st.booleans()):
                break
            mine.append(free.pop(0))
        axes.append(tuple(mine))
    return Layout(matrix, tuple(axes)), source, target


@given(_cases())
def test_reshaping_slices_gives_the_slices_of_the_reshaped_tensor(case):
    layout, source, target = case
    kept, gained = through_reshape(layout, source, target)
    whole = np.arange(math.prod(source)).reshape(source)
    for rank in kept.ranks:
        piece = whole[kept.region(rank, source).as_slices()]
        wanted = whole.reshape(target)[gained.region(rank, target).as_slices()]
        np.testing.assert_array_equal(piece.reshape(wanted.shape), wanted)
    for before, after in zip(layout.axes, kept.axes, strict=True):
        assert before[: len(after)] == after  # splits are kept or gathered, never invented
