"""What collectives compute is what NumPy computes: ranks are threads, the memory is shared."""

from __future__ import annotations

from functools import reduce

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from workers.resharding.region import Region
from workers.spmd.collectives import ReduceScatter, all_gather, all_reduce, pass_on

DTYPES = ["f2", "bfloat16", "f4", "f8", "i1", "i2", "i4", "i8", "u1", "?"]
COMBINE = {"sum": np.add, "mean": np.add, "max": np.maximum, "min": np.minimum}
SIZES = st.sampled_from([0, 1, 2, 7, 1000, 8191, 8192, 70_001])
PIECES = st.sampled_from([1 << 17, 1 << 20])
HOWS = st.sampled_from(sorted(COMBINE))


@pytest.fixture(scope="module")
def dtype_of():
    from mindspore.common.np_dtype import bfloat16

    return lambda name: np.dtype(bfloat16) if name == "bfloat16" else np.dtype(name)


def arrays_of(ranks, shape, dtype, seed):
    random = np.random.RandomState(seed)
    return [(random.randn(*shape) * 20).astype(dtype) for _ in range(ranks)]


def combined(arrays, how):
    """Combine in the order of the group; sums of 16-bit floats in float32, as it is promised."""
    dtype = arrays[0].dtype
    short = dtype.itemsize == 2 and dtype.kind not in "iu"
    total = reduce(COMBINE[how], [array.astype(np.float32 if short else dtype) for array in arrays])
    return (total / len(arrays) if how == "mean" else total).astype(dtype)


@pytest.mark.parametrize("dtype", ["bfloat16", "f4"])
@pytest.mark.parametrize("shape", [(), (0, 3), (7, 5), (3, 70_001)])
def test_what_the_first_of_a_group_has_is_passed_on_to_the_others(
    on_ranks, dtype_of, dtype, shape
):
    sent = np.random.RandomState(0).randn(*shape) * np.ones(shape)
    sent = sent.astype(dtype_of(dtype))

    def work(mesh):
        mesh.piece_bytes = 1 << 17
        mine = sent.copy() if mesh.rank == 1 else np.zeros(shape, f"u{sent.itemsize}")
        if mesh.rank != 3:
            pass_on(mesh, (1, 0, 2), mine, "Send")
        return mine

    *received, other = on_ranks(4, work)
    for array in received:
        assert array.tobytes() == sent.tobytes()
    assert not other.any()


@pytest.mark.parametrize("dtype", DTYPES)
@settings(max_examples=12, deadline=None)
@given(size=SIZES, how=HOWS, sub_groups=st.booleans(), in_place=st.booleans(), piece=PIECES)
@example(size=600_001, how="sum", sub_groups=False, in_place=True, piece=1 << 20)
@example(size=(1 << 19) + 3, how="mean", sub_groups=False, in_place=False, piece=1 << 20)
def test_all_reduce_is_numpys_reduction_in_the_order_of_the_group(
    on_ranks, dtype_of, dtype, size, how, sub_groups, in_place, piece
):
    arrays = arrays_of(4, (size,), dtype_of(dtype), size)

    def group_of(rank):
        return ((0, 2), (1, 3))[rank % 2] if sub_groups else (0, 1, 2, 3)

    def work(mesh):
        mesh.piece_bytes = piece
        mine = arrays[mesh.rank].copy()
        out = mine if in_place else None
        return all_reduce(mesh, group_of(mesh.rank), mine, how, how, out)

    for rank, result in enumerate(on_ranks(4, work)):
        wanted = combined([arrays[member] for member in group_of(rank)], how)
        assert result.dtype == wanted.dtype
        np.testing.assert_array_equal(result.view(np.uint8), wanted.view(np.uint8))  # to the bit


@pytest.mark.parametrize("dtype", DTYPES)
@settings(max_examples=6, deadline=None)
@given(
    rows=st.integers(1, 40),
    columns=st.integers(1, 50),
    how=HOWS,
    piece=st.sampled_from([256, 1 << 20]),
)
def test_reduce_scatter_gives_each_rank_its_rows_of_that(
    on_ranks, dtype_of, dtype, rows, columns, how, piece
):
    shape = (3 * rows, columns)
    arrays = arrays_of(3, shape, dtype_of(dtype), rows)
    kept = {r: Region((r * rows, 0), ((r + 1) * rows, columns)) for r in range(3)}

    def work(mesh):
        mesh.piece_bytes = piece
        itemsize = arrays[0].itemsize
        return ReduceScatter(mesh, kept, shape, itemsize, how, how)(arrays[mesh.rank])

    wanted = combined(arrays, how)
    for rank, result in enumerate(on_ranks(3, work)):
        assert result.tobytes() == wanted[kept[rank].as_slices()].tobytes()


@pytest.mark.parametrize("dtype", DTYPES)
def test_all_gather_returns_copies_in_the_order_of_the_group(on_ranks, dtype_of, dtype):
    arrays = arrays_of(3, (5, 7), dtype_of(dtype), 1)

    def work(mesh):
        first = all_gather(mesh, (0, 1, 2), arrays[mesh.rank], "first")
        all_gather(mesh, (0, 1, 2), arrays[0], "second")
        all_gather(mesh, (0, 1, 2), arrays[0], "third")  # into the memory of the first
        return first

    for found in on_ranks(3, work):
        assert [a.tobytes() for a in found] == [a.tobytes() for a in arrays]


def test_integers_are_summed_without_a_detour_through_floats(on_ranks):
    big = np.array([2**62 + 1, -(2**53) - 1], np.int64)
    results = on_ranks(2, lambda mesh: all_reduce(mesh, (0, 1), big // 2, "sum", "sum"))
    np.testing.assert_array_equal(results[0], big // 2 * 2)
