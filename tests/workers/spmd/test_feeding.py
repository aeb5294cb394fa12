"""What a rank is fed of the inputs, by MindSpore's dataset_strategy."""

from __future__ import annotations

import numpy as np
import pytest
from mindspore import Parameter, Tensor, nn, ops

from workers.spmd.errors import DatasetStrategyError
from workers.spmd.feeding import input_layouts
from workers.spmd.graph import Value

INPUTS = (Value("input:x", (16, 8), "Float32"), Value("input:y", (16,), "Float32"))


def slices(strategy, devices, inputs=INPUTS):
    """Return the (start, stop) of what each rank is fed of each input."""
    layouts = input_layouts(strategy, inputs, devices)
    regions = [
        [layouts[value.name].region(rank, value.shape) for rank in range(devices)]
        for value in inputs
    ]
    return [[(region.start, region.stop) for region in ranks] for ranks in regions]


def test_whole_batches_are_not_divided():
    assert input_layouts("full_batch", INPUTS, 8) == {}


def test_data_parallel_splits_the_rows_of_every_input_over_all_ranks():
    x, y = slices("data_parallel", 4)
    assert x == [((4 * r, 0), (4 * r + 4, 8)) for r in range(4)]
    assert y == [((4 * r,), (4 * r + 4,)) for r in range(4)]


def test_a_scalar_input_is_whole_in_data_parallel():
    inputs = (INPUTS[0], Value("input:temperature", (), "Float32"))
    assert input_layouts("data_parallel", inputs, 4)["input:temperature"].split_counts == ()


def test_ranks_beyond_the_parts_repeat_them():
    # 4 ranks, 2 parts of 8 rows: rank 2 has the rows of rank 0 (MindSpore repeats on the left).
    x, _ = slices([[2, 1], [2]], 4)
    assert [start[0] for start, _ in x] == [0, 8, 0, 8]


def test_inputs_may_be_split_in_different_dims():
    x, y = slices([[1, 4], [4]], 4)
    assert [start for start, _ in x] == [(0, 0), (0, 2), (0, 4), (0, 6)]
    assert [start for start, _ in y] == [(0,), (4,), (8,), (12,)]


@pytest.mark.parametrize(
    "strategy, devices, reason",
    [
        ([[4, 1]], 4, "of 1 inputs, the network has 2: x, y"),
        ([[4], [4]], 4, "x of shape .16, 8.: .4. has 1 numbers for 2 dims"),
        ([[2, 2], [2]], 4, "x .*more than one dim"),
        ([[3, 1], [1]], 3, "does not divide 16 by 3"),
        ([[4, 1], [2]], 4, "split into 2 and 4"),
        ([[1, 1], [4]], 4, "the input with the most dims is whole"),
        ([[4, 1], [4]], 6, "6 ranks cannot have 4 parts"),
        ("data_parallel", 3, "does not divide 16 by 3"),
    ],
)
def test_what_mindspore_would_refuse_is_refused(strategy, devices, reason):
    with pytest.raises(DatasetStrategyError, match=reason):
        input_layouts(strategy, INPUTS, devices)


class Net(nn.Cell):
    """relu(x @ w): columns over four ranks, x whole."""

    def __init__(self, strategy=((1, 1), (1, 4))):
        super().__init__()
        self.w = Parameter(Tensor(np.linspace(-1, 1, 64, dtype=np.float32).reshape(8, 8)), name="w")
        self.matmul, self.relu = ops.MatMul().shard(strategy), ops.ReLU()

    def construct(self, x):
        return self.relu(self.matmul(x, self.w))


X = np.linspace(-2, 2, 128, dtype=np.float32).reshape(16, 8)


@pytest.mark.parametrize("strategy", ["full_batch", "data_parallel", [[2, 1]], [[1, 4]]])
@pytest.mark.parametrize("operator", [((1, 1), (1, 4)), ((4, 1), (1, 1)), ((1, 4), (4, 1))])
def test_the_answer_is_the_same_however_the_input_is_fed(
    capture_cell, lockstep, strategy, operator
):
    from workers.spmd.pipeline import divide_network

    inputs = (Tensor(X),)
    graph = capture_cell(lambda: Net(operator), inputs, 4)
    programs = divide_network(graph, 4, dataset_strategy=strategy)
    weight = np.linspace(-1, 1, 64, dtype=np.float32).reshape(8, 8)
    for (answer,) in lockstep(programs, {"w": weight}, inputs):
        np.testing.assert_allclose(answer, np.maximum(X @ weight, 0), rtol=1e-5, atol=1e-6)


def test_rows_that_an_operator_wants_as_they_are_fed_are_not_exchanged(capture_cell):
    from workers.layout_report import report
    from workers.spmd.pipeline import divide_network

    def collectives(operator):
        graph = capture_cell(lambda: Net(operator), (Tensor(X),), 4)
        found = report(divide_network(graph, 4, dataset_strategy="data_parallel"))
        assert found["inputs"]["x"]["slice_shape"] == [4, 8]
        return [(c["op"], c["tensor"]) for c in found["collectives"]]

    by_rows, by_columns = collectives(((4, 1), (1, 1))), collectives(((1, 1), (1, 4)))
    assert [op for op, _ in by_rows] == ["AllGather"]  # of the result
    assert by_columns[0] == ("AllGather", "input:x")


def test_each_stage_of_a_pipeline_divides_the_input_among_its_own_ranks(capture_cell, lockstep):
    from workers.spmd.pipeline import divide_network

    class Staged(nn.Cell):
        def __init__(self):
            super().__init__()
            self.first, self.second = Net(((2, 1), (1, 2))), Net(((1, 2), (2, 1)))
            self.first.pipeline_stage, self.second.pipeline_stage = 0, 1

        def construct(self, x):
            return self.second(self.first(x)) + x

    inputs = (Tensor(X),)
    programs = divide_network(
        capture_cell(Staged, inputs, 8), 8, 2, dataset_strategy="data_parallel"
    )
    assert [program.inputs[0].layout.stages for program in programs] == [(0,), (1,)]
    weight = np.linspace(-1, 1, 64, dtype=np.float32).reshape(8, 8)
    wanted = np.maximum(np.maximum(X @ weight, 0) @ weight, 0) + X
    weights = {"first.w": weight, "second.w": weight}
    for (answer,) in lockstep(programs, weights, inputs):
        np.testing.assert_allclose(answer, wanted, rtol=1e-5, atol=1e-6)
