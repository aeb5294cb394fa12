"""Networks that branch and loop on data give what Python itself would compute."""

from __future__ import annotations

import numpy as np
import pytest
from mindspore import Parameter, Tensor, nn, ops

from workers.spmd.errors import CaptureError


class Cell(nn.Cell):
    def __init__(self):
        super().__init__()
        self.matmul = ops.MatMul().shard(((2, 1), (1, 4)))
        weight = np.random.RandomState(0).rand(8, 8).astype(np.float32) / 8
        self.weight = Parameter(Tensor(weight), name="weight")
        self.relu = ops.ReLU()


class If(Cell):
    def construct(self, x):
        y = self.matmul(x, self.weight)
        if y.sum() > 0:
            z = self.relu(y) + x
        else:
            z = self.matmul(y, self.weight) - 1
        return z * 2


class OneSided(Cell):
    def construct(self, x):
        y = x
        if x.sum() > 0:
            y = y + 1
        if x.max() > 2:
            y = y * self.matmul(y, self.weight)
        return self.matmul(y, self.weight), y


class EarlyReturn(Cell):
    def construct(self, x):
        if x.sum() > 100:
            return x, x * 2
        y = self.matmul(x, self.weight)
        if y.sum() > 0:
            return y, x
        return x, y


class While(Cell):
    def construct(self, x):
        total = x.sum()
        while total < 100:
            x = self.matmul(x, self.weight) + 1
            total = total + ops.abs(x).sum()
        return x, total


class Counted(Cell):
    def construct(self, x):
        i = Tensor(0)
        while i < 5:
            x = self.matmul(x, self.weight)
            i += 1
        return x + i


class Nested(Cell):
    def construct(self, x):
        i = Tensor(0)
        while i < 3:
            j = Tensor(0)
            while j < i:
                x = self.matmul(x, self.weight) + j
                j += 1
            if x.sum() > 4:
                x = x - 1
            i += 1
        return x


class BreaksOut(Cell):
    def construct(self, x):
        i = Tensor(0)
        while i < 10:
            i += 1
            if x.sum() < 0:
                continue
            x = self.matmul(x, self.weight) - 0.5
            if x.max() < 0.1:
                break
        return x, i


class TwoLoops(Cell):
    def construct(self, x):
        i = Tensor(0)
        while i < 3:
            x = x + 1
            i += 1
        while x.sum() > 1:
            x = x - self.relu(x) / 2 - 0.1
        return x


class ChangesAWeight(Cell):
    def __init__(self):
        super().__init__()
        self.matmul = ops.MatMul().shard(((1, 1), (1, 8)))
        self.double = ops.Mul().shard(((1, 8), ()))

    def construct(self, x):
        w = self.weight
        i = Tensor(0)
        while i < 3:
            x = self.matmul(x, w)
            w = self.double(w, 2.0)
            i += 1
        return x + self.double(w, 1.0)


NETWORKS = [
    *(If, OneSided, EarlyReturn, While, Counted),
    *(Nested, BreaksOut, TwoLoops, ChangesAWeight),
]


@pytest.mark.parametrize("devices", [1, 8])
@pytest.mark.parametrize("sign", [1, -1])
@pytest.mark.parametrize("network", NETWORKS, ids=lambda network: network.__name__)
def test_the_data_decide_what_runs(capture_cell, lockstep, network, sign, devices):
    from mindspore import PYNATIVE_MODE, set_context

    from workers.spmd.partition import partition

    x = Tensor(sign * np.random.RandomState(1).rand(8, 8).astype(np.float32))
    program = partition(capture_cell(network, [x]), devices)
    weight = network().weight.asnumpy()
    set_context(mode=PYNATIVE_MODE)  # a compiled += writes into constants
    wanted = network()(x)
    wanted = wanted if isinstance(wanted, tuple) else (wanted,)
    for answer in lockstep(program, {"weight": weight}, [x]):
        for found, right in zip(answer, wanted, strict=True):
            np.testing.assert_allclose(found, right.asnumpy(), rtol=1e-5, atol=1e-6)


def test_a_weight_used_in_both_branches_and_after_them_lies_as_its_operators_want(capture_cell):
    from workers.spmd.partition import partition

    program = partition(capture_cell(OneSided, [Tensor(np.ones((8, 8), np.float32))]), 8)
    assert program.parameters["weight"].layout.split_counts == (1, 4)


@pytest.mark.parametrize("number", [0, 1, 2, -1])
def test_a_cell_may_be_picked_by_its_number(capture_cell, lockstep, number):
    from mindspore import int32

    from workers.spmd.partition import partition

    class Picks(nn.Cell):
        def __init__(self):
            super().__init__()
            self.layers = nn.CellList([nn.ReLU(), nn.Tanh(), nn.Sigmoid()])

        def construct(self, x, i):
            return self.layers[i](x) * 2

    x = np.random.RandomState(1).randn(8, 8).astype(np.float32)
    inputs = [Tensor(x), Tensor(number, int32)]
    wanted = [np.maximum(x, 0), np.tanh(x), 1 / (1 + np.exp(-x))][number] * 2
    for (answer,) in lockstep(partition(capture_cell(Picks, inputs), 4), {}, inputs):
        np.testing.assert_allclose(answer, wanted, rtol=1e-5)


def test_recursion_that_is_no_loop_is_refused(capture_cell):
    class Factorial(nn.Cell):
        def construct(self, x):
            return self.product(x)

        def product(self, x):
            if x.sum() < 2:
                return x
            return x * self.product(x - 1)

    with pytest.raises(CaptureError, match="calling itself|cannot compile"):
        capture_cell(Factorial, [Tensor(np.full((1,), 4, np.float32))])
