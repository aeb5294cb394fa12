"""Ranks that exchange data: threads stand in for processes, sockets and memory are real."""

from __future__ import annotations

import threading
import time
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from workers.errors import WorkerError
from workers.resharding.layout import Layout
from workers.spmd.collectives import Exchange, all_reduce
from workers.spmd.redistribution import plan_redistribution, reduction_groups


def test_many_exchanges_in_changing_groups_never_read_a_buffer_too_late(on_ranks):
    groups = [(0, 1, 2, 3), (0, 1), (0, 2), (0, 3), (0, 1), (0, 1, 2, 3)]

    def work(mesh):
        for step in range(60):
            group = groups[step % len(groups)]
            if mesh.rank not in group:
                continue
            mine = np.full(50, 100 * step + mesh.rank)
            total = all_reduce(mesh, group, mine, "sum", f"step {step}")
            assert (total == sum(100 * step + member for member in group)).all()
        return True

    assert all(on_ranks(4, work))


_LAYOUTS = [
    Layout((4,), ((), ())),
    Layout((4,), ((0,), ())),
    Layout((4,), ((), (0,))),
    Layout((2, 2), ((0,), (1,))),
    Layout((2, 2), ((1,), (0,))),
    Layout((2, 2), ((0,), ())),
    Layout((2, 2), ((), (1,))),
    Layout((2, 2), ((1, 0), ())),
]


@settings(max_examples=30, deadline=None)
@given(st.lists(st.sampled_from(_LAYOUTS), min_size=2, max_size=6))
def test_a_chain_of_redistributions_ends_in_the_right_slices(on_ranks, layouts):
    shape = (8, 12)
    whole = np.arange(96.0).reshape(shape)

    def work(mesh):
        mesh.piece_bytes = 160  # a row and a half
        held = whole[layouts[0].region(mesh.rank, shape).as_slices()].copy()
        for number, (source, target) in enumerate(zip(layouts, layouts[1:], strict=False)):
            transfer = plan_redistribution(source, target, shape)[mesh.rank]
            out = np.full(target.slice_shape(shape), np.nan)
            Exchange(mesh, transfer, held.shape, 8, f"step {number}")(held, out)
            held = out
        return held

    for rank, held in enumerate(on_ranks(4, work)):
        wanted = whole[layouts[-1].region(rank, shape).as_slices()]
        np.testing.assert_array_equal(held, wanted)


def test_a_rank_with_less_data_frees_the_others_and_is_named(on_ranks):
    def work(mesh):
        if mesh.rank == 2:
            return "done"
        with pytest.raises(WorkerError) as caught:
            all_reduce(mesh, (0, 1, 2), np.ones(3), "sum", "AllReduce after MatMul")
        return str(caught.value)

    found = on_ranks(3, work)
    # Rank 0 or 1 may first learn that the other one gave up: that is an echo of the same end.
    assert any("rank 2 is in the end of its data" in told for told in found[:2])
    assert all("is in AllReduce after MatMul" in told for told in found[:2])


def test_a_rank_that_has_finished_does_not_take_its_last_words_with_it(on_ranks):
    # Ranks 0, 1 and 2 go on after the last collective with rank 3, whose answers they have
    # not read yet when it hangs up; what they told it is never read.
    def work(mesh):
        everybody = all_reduce(mesh, (0, 1, 2, 3), np.ones(3), "sum", "first")
        if mesh.rank == 3:
            return everybody
        for step in range(4):
            all_reduce(mesh, (0, 1, 2), np.ones(3), "sum", f"later {step}")
        return everybody

    for _ in range(10):
        assert [result[0] for result in on_ranks(4, work)] == [4] * 4


def test_calls_with_very_long_names_are_still_the_same_call(on_ranks):
    name = "AllReduce after " + "MatMul (" * 2000
    results = on_ranks(2, lambda mesh: all_reduce(mesh, (0, 1), np.ones(2), "sum", name))
    np.testing.assert_array_equal(results, np.full((2, 2), 2.0))


def test_ranks_in_different_calls_are_told_so(on_ranks):
    def work(mesh):
        call = "AllReduce after MatMul" if mesh.rank else "AllGather after ReLU"
        with pytest.raises(WorkerError) as caught:
            all_reduce(mesh, (0, 1), np.ones(3), "sum", call)
        return str(caught.value)

    told = on_ranks(2, work)
    assert any("AllGather after ReLU" in m and "AllReduce after MatMul" in m for m in told)


def test_ranks_that_wait_for_each_other_in_different_groups_are_told_so(on_ranks):
    def work(mesh):
        group, call = ((0, 1), "AllGather") if mesh.rank == 0 else ((0, 1, 2), "AllReduce")
        with pytest.raises(WorkerError) as caught:
            for number in range(2):  # in the second round they have met in both groups before
                meet = [((0, 1, 2), "AllReduce"), ((0, 1), "AllGather")]
                for members, name in meet if number == 0 else [(group, call)]:
                    if mesh.rank in members:
                        all_reduce(mesh, members, np.ones(3), "sum", name)
        return str(caught.value)

    told = on_ranks(3, work)
    assert any("AllGather" in message and "AllReduce" in message for message in told)


def test_or_in_groups_that_have_not_met_before(on_ranks):
    def work(mesh):
        group, call = ((0, 1), "AllGather") if mesh.rank == 0 else ((0, 1, 2), "AllReduce")
        with pytest.raises(WorkerError) as caught:
            all_reduce(mesh, group, np.ones(3), "sum", call)
        return str(caught.value)

    told = on_ranks(3, work)
    assert any("AllGather" in message and "AllReduce" in message for message in told)


def test_ranks_that_give_different_amounts_are_told_so(on_ranks):
    def work(mesh):
        with pytest.raises(WorkerError) as caught:
            all_reduce(mesh, (0, 1), np.ones(3 + mesh.rank), "sum", "AllReduce")
        return str(caught.value)

    told = on_ranks(2, work)
    assert any("24 bytes" in message and "32 bytes" in message for message in told)


def test_a_waiting_rank_knows_for_whom_and_in_what(on_ranks):
    late = threading.Event()

    def work(mesh):
        assert mesh.waiting_for is None
        if mesh.rank == 1:
            late.wait()
            return all_reduce(mesh, (0, 1), np.ones(3), "sum", "AllReduce after MatMul")
        with ThreadPoolExecutor(1) as pool:
            call = "AllReduce after MatMul"
            reducing = pool.submit(all_reduce, mesh, (0, 1), np.ones(3), "sum", call)
            while mesh.waiting_for is None:
                time.sleep(0.001)
            found = mesh.waiting_for
            late.set()
            reducing.result()
        return found

    assert on_ranks(2, work)[0] == (1, "AllReduce after MatMul")


def test_redistribution_along_one_axis_stays_within_its_groups():
    # [2, 4]: rows split by 2. Rank 1 lacks the second half, which rank 5 has at the same place.
    transfers = plan_redistribution(Layout((2, 4), ((0,), ())), Layout((8,), ((), ())), (4, 4))
    assert transfers[1].group == (1, 5)
    assert transfers[1].kind == "AllGather"
    assert transfers[1].elements_received == 8


def test_cutting_a_whole_tensor_moves_nothing():
    transfers = plan_redistribution(Layout((4,), ((), ())), Layout((4,), ((0,), ())), (4, 4))
    assert {t.kind for t in transfers.values()} == {"Slice"}
    assert {t.elements_received for t in transfers.values()} == {0}


def test_partial_results_of_a_contraction_are_reduced_along_its_axis():
    groups = reduction_groups(Layout((2, 2, 2), ((0,), (2,))), (1,))
    assert groups[0] == (0, 2) and groups[5] == (5, 7)
