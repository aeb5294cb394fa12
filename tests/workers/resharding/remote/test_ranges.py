from __future__ import annotations

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from workers.resharding.region import Region
from workers.resharding.remote.ranges import cut, merged, runs, touches, within, without
from workers.resharding.strided import box_of_block

ranges = st.lists(st.tuples(st.integers(0, 60), st.integers(0, 60)), max_size=12)


def bytes_of(spans):
    return {byte for start, stop in spans for byte in range(start, stop)}


def test_ranges_with_a_small_gap_between_them_become_one():
    assert merged([(50, 60), (0, 10), (12, 20)], gap=2) == [(0, 20), (50, 60)]


def test_what_is_held_already_is_not_wanted_again():
    assert without([(0, 10), (20, 30)], [(5, 22), (25, 26)]) == [(0, 5), (22, 25), (26, 30)]


@given(ranges, st.integers(0, 5))
def test_merged_ranges_hold_the_same_bytes_and_gaps_of_the_given_size(spans, gap):
    joined = merged(spans, gap)
    assert bytes_of(joined) >= bytes_of(spans)
    assert all(b - a > gap for (_, a), (b, _) in zip(joined, joined[1:]))
    assert bytes_of(merged(spans)) == bytes_of(spans)


@given(ranges, ranges)
def test_without_is_the_difference_of_sets(spans, held):
    left = without(merged(spans), merged(held))
    assert bytes_of(left) == bytes_of(spans) - bytes_of(held)
    assert left == merged(left)


@given(ranges, st.integers(0, 60), st.integers(1, 60))
def test_touching_and_lying_within_are_what_they_are_for_sets(spans, start, length):
    part, joined = (start, start + length), merged(spans)
    assert touches(part, joined) == bool(bytes_of([part]) & bytes_of(joined))
    assert within(part, joined) == (bytes_of([part]) <= bytes_of(joined))


@given(ranges, st.integers(1, 7))
def test_cut_ranges_hold_the_same_bytes_in_short_pieces(spans, most):
    pieces = cut(merged(spans), most)
    assert bytes_of(pieces) == bytes_of(spans)
    assert sum(stop - start for start, stop in pieces) == len(bytes_of(spans))
    assert all(0 < stop - start <= most for start, stop in pieces)


@st.composite
def boxes(draw):
    shape = tuple(draw(st.lists(st.integers(1, 5), max_size=4)))
    bounds = [sorted((draw(st.integers(0, n)), draw(st.integers(0, n)))) for n in shape]
    return shape, Region(tuple(a for a, _ in bounds), tuple(b for _, b in bounds))


@given(boxes(), st.integers(0, 40))
def test_runs_of_a_box_are_the_bytes_that_numpy_would_touch(case, gap):
    shape, region = case
    offsets = np.arange(int(np.prod(shape, dtype=int))).reshape(shape)[region.as_slices()]
    touched = {7 + 4 * int(n) + byte for n in offsets.reshape(-1) for byte in range(4)}
    box = box_of_block(7, shape, region, 4)
    assert bytes_of(runs(box, 0)) == touched
    wide = list(runs(box, gap))
    assert bytes_of(wide) >= touched
    assert bytes_of(wide) <= bytes_of(merged(runs(box, 0), gap))
