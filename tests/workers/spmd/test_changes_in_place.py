"""Who reads a tensor after it was changed in place sees the change, as in MindSpore itself."""

from __future__ import annotations

import numpy as np
import pytest
from mindspore import GRAPH_MODE, Tensor, mint, nn, ops, set_context

from workers.spmd.errors import CaptureError

X = np.random.RandomState(0).rand(8, 16).astype(np.float32)


class Unused(nn.Cell):
    def construct(self, x):
        y = x * 1
        before = y * 2
        y.add_(5)
        y.div_(2)
        return before, y.sum(), y


class Renamed(nn.Cell):
    def construct(self, x):
        y = x * 1
        same = y
        z = y.add_(1)
        z.mul_(3)
        return same + z, y, z


class Copied(nn.Cell):
    def construct(self, x):
        y = x * 0
        y.copy_(x + 5)
        return ops.relu(y)


class Doubling(nn.Cell):
    def construct(self, x):
        x.mul_(2)
        return x.sum()


class InCells(nn.Cell):
    def __init__(self):
        super().__init__()
        self.first = self.second = Doubling()

    def construct(self, x):
        y = x * 1
        return self.first(y), self.second(y), y


class InBranches(nn.Cell):
    def construct(self, x):
        y = x * 1
        if x.sum() > 0:
            y.add_(5)
        else:
            y -= 1
        z = y * 2
        y += 1
        return y * 1, z


class InRounds(nn.Cell):
    def construct(self, x):
        y, i = x * 1, ops.zeros(())
        while i < 3:
            y += 1
            i += 1
            if y.sum() > 200:
                y *= 2
        return y, i


class InNameOnly(nn.Cell):
    def construct(self, x):
        y = x * 1
        z = ops.inplace_add(y, x[:2], (0, 1))
        return z * 1, ops.depend(y, z) * 1


class Unseen(nn.Cell):
    def construct(self, x):
        y, i = x * 1, ops.zeros(())
        while i < 3:
            y.add_(1)
            i += 1
        return y * 1


@pytest.fixture
def on_ranks_of(capture_cell, lockstep):
    def run(make, devices=4):
        from workers.spmd.partition import partition

        program = partition(capture_cell(make, [Tensor(X)], devices), devices)
        return lockstep(program, {}, [Tensor(X.copy())])[0]

    return run


@pytest.mark.parametrize(
    "make", [Unused, Renamed, Copied, InCells, InBranches, InRounds, InNameOnly]
)
def test_the_answer_is_that_of_one_process(make, on_ranks_of):
    set_context(mode=GRAPH_MODE)
    alone = make()(Tensor(X.copy()))
    alone = [y.asnumpy() for y in (alone if isinstance(alone, tuple) else (alone,))]
    found = on_ranks_of(make)
    for y, wanted in zip(found, alone, strict=True):
        np.testing.assert_allclose(y, wanted, rtol=1e-6)


def test_operators_that_only_ascend_changes_tensors_with(on_ranks_of):
    class Net(nn.Cell):
        def construct(self, x):
            a, b, c, d = x * 1, x - 0.5, x * 1, x * 1
            a.fill_(2)
            mint.nn.functional.relu(b, inplace=True)
            c.index_add_(0, Tensor([0, 1]), x[:2])
            d.masked_fill_(x > 0.5, 9.0)
            return a, b, c, d

    added = X.copy()
    added[:2] *= 2
    wanted = (np.full_like(X, 2), np.maximum(X - 0.5, 0), added, np.where(X > 0.5, 9, X))
    for found, right in zip(on_ranks_of(Net), wanted, strict=True):
        np.testing.assert_array_equal(found, right)


def test_a_change_that_a_loop_would_hide_is_refused(on_ranks_of):
    with pytest.raises(CaptureError, match="in place in a branch or loop"):
        on_ranks_of(Unseen)


def test_a_change_that_the_reader_of_a_list_may_see_or_not_is_refused(on_ranks_of):
    class Net(nn.Cell):
        def construct(self, x):
            parts = [x * 1, x * 2]
            parts[0].add_(1)
            return ops.concat(parts)

    with pytest.raises(CaptureError, match="make the list after the change"):
        on_ranks_of(Net)


def test_a_list_that_is_made_after_the_change_is_read(on_ranks_of):
    class Net(nn.Cell):
        def construct(self, x):
            y = x * 1
            before = ops.concat((y, x))
            y.add_(1)
            return before, ops.concat((y, x))

    before, after = on_ranks_of(Net)
    np.testing.assert_array_equal(before, np.concatenate((X, X)))
    np.testing.assert_array_equal(after, np.concatenate((X + 1, X)))
