"""What MindSpore refuses is refused with the operator, its place, the reason and a way out."""

from __future__ import annotations

import pickle

import numpy as np
import pytest

from workers.spmd.errors import ParameterConflictError, StrategyError


@pytest.fixture
def refusal(capture_cell):
    """Return how the one operator of a cell is refused on 8 devices."""

    def divide(make, shapes, strategy=None, constants=(), devices=8, dtypes=()):
        import mindspore
        from mindspore import nn, ops

        from workers.spmd.partition import partition

        class Net(nn.Cell):
            def __init__(self):
                super().__init__()
                self.operator = make(ops)
                if strategy:
                    self.operator.shard(strategy)

            def construct(self, *tensors):
                return self.operator(*tensors, *constants)

        types = [*dtypes, *["float32"] * len(shapes)]
        inputs = [
            mindspore.Tensor(np.ones(s), getattr(mindspore, t)) for s, t in zip(shapes, types)
        ]
        with pytest.raises(StrategyError) as caught:
            partition(capture_cell(Net, inputs), devices)
        return caught.value

    return divide


def test_a_refusal_says_what_where_why_and_what_to_write(refusal):
    error = refusal(lambda ops: ops.Softmax(-1), [(8, 16)], ((1, 4),))
    assert error.exit_code == 2
    assert error.operator.startswith("Softmax (Softmax-op0, ")
    assert "test_refusals.py:" in error.operator  # the line that calls it
    assert "dimension 1 of input 0 is split 4 ways, but the operator computes" in str(error)
    assert error.remedy == "write 1"
    assert str(pickle.loads(pickle.dumps(error))) == str(error)


def test_the_line_is_the_users_own_also_inside_cells_of_mindspore(capture_cell):
    from mindspore import Tensor, nn

    from workers.spmd.partition import partition

    class Net(nn.Cell):
        def __init__(self):
            super().__init__()
            self.dense = nn.Dense(16, 16)
            self.dense.matmul.shard(((2, 3), (4, 3)))

        def construct(self, x):
            return self.dense(x)  # here

    graph = capture_cell(Net, [Tensor(np.ones((8, 16), np.float32))])
    with pytest.raises(StrategyError) as caught:
        partition(graph, 8)
    file, _, line = caught.value.operator.rstrip(")").rpartition(", ")[2].rpartition(":")
    with open(file) as source:
        assert "# here" in source.readlines()[int(line) - 1]


def test_the_line_is_the_users_own_also_if_the_network_returns_names(capture_cell):
    from mindspore import Tensor, nn, ops

    class Net(nn.Cell):
        def __init__(self):
            super().__init__()
            self.neg = ops.Neg()

        def construct(self, x):
            x = x + 1
            return {"y": self.neg(x)}  # there

    graph = capture_cell(Net, [Tensor(np.ones((8, 16), np.float32))])
    (node,) = [node for node in graph.nodes if node.op == "Neg"]
    file, _, line = node.source.rpartition(":")
    with open(file) as source:
        assert "# there" in source.readlines()[int(line) - 1]


@pytest.mark.parametrize(
    "make, shapes",
    [
        (lambda ops: ops.Softmax(0), [(8, 16)]),
        (lambda ops: ops.LogSoftmax(-1), [(16,)]),
        (lambda ops: ops.LayerNorm(0, 0), [(16,), (16,), (16,)]),
        (lambda ops: ops.ReverseV2((0,)), [(8, 16)]),
    ],
)
def test_a_generated_strategy_that_mindspore_refuses_itself(refusal, make, shapes):
    error = refusal(make, shapes)
    assert "without a strategy MindSpore splits dimension 0 8 ways" in error.reason
    assert error.remedy.startswith("give it a strategy, such as .shard(((1")


def test_a_generated_strategy_must_divide_the_repetitions_of_tile(refusal):
    error = refusal(lambda ops: ops.Tile(), [(8, 16)], None, ((4, 1),))
    assert "8 devices do not divide 4" in error.reason


@pytest.mark.parametrize(
    "table, strategy, reason",
    [
        ((256, 64), ((2, 1), (2, 1)), "the indices cannot be split too"),
        ((256, 64), ((2, 2), (1, 1)), "must use all devices"),
        ((256, 64, 2), ((8, 1, 1), (1, 1)), "in a table of 3 dimensions"),
    ],
)
def test_tables_that_are_split_by_rows(refusal, table, strategy, reason):
    dtypes = ("float32", "int32")
    error = refusal(lambda ops: ops.Gather(), [table, (8, 8)], strategy, (0,), dtypes=dtypes)
    assert reason in error.reason


@pytest.mark.parametrize(
    "make, shapes, strategy, reason",
    [
        (
            lambda ops: ops.Conv2D(8, 3, group=2),
            [(8, 8, 8, 8), (8, 4, 3, 3)],
            ((2, 2, 1, 1), (2, 2, 1, 1)),
            "computes along it",
        ),
        (
            lambda ops: ops.MaxPool(3, 1),
            [(8, 8, 10, 10)],
            ((2, 1, 2, 1),),
            "windows overlap",
        ),
        (
            lambda ops: ops.MatMul(),
            [(64, 32), (32, 16)],
            ((2, 2), (4, 2)),
            "is split 4 ways, but dimension 1 of input 0, which it meets, is split 2 ways",
        ),
        (lambda ops: ops.Argmax(-1), [(8, 16)], ((2, 4),), "computes along it"),
        (lambda ops: ops.Mul(), [(8, 16), (8, 16)], ((2, 4),), "has 1 entries"),
        (lambda ops: ops.ReLU(), [(8, 16)], ((3, 1),), "8 elements, which 3 devices do not"),
        (lambda ops: ops.Reshape(), [(8, 16)], ((2, 4),), "a strategy on Reshape means nothing"),
    ],
)
def test_what_an_operator_forbids(refusal, make, shapes, strategy, reason):
    constants = ((16, 8),) if "Reshape" in reason else ()
    assert reason in refusal(make, shapes, strategy, constants).reason


def test_a_strategy_of_the_result_is_taken_by_few_operators(refusal):
    error = refusal(lambda ops: ops.ReLU().shard(((2, 4),), ((2, 4),)), [(8, 16)])
    assert "takes no out_strategy" in error.reason
    error = refusal(lambda ops: ops.MatMul().shard(((2, 2), (2, 2)), ((2, 4),)), [(8, 16), (16, 8)])
    assert error.remedy == "write (2, 2) or (4, 2)"


def layout(*dims, matrix=(2, 2, 2), names=("a", "b", "c")):
    from mindspore import Layout

    return Layout(matrix, names)(*dims)


@pytest.mark.parametrize(
    "make, shapes, layouts, reason",
    [
        (
            lambda ops: ops.ReLU(),
            [(8, 16)],
            lambda: (layout("a", "b", matrix=(2, 2), names=("a", "b")),),
            "4 devices; there are 8",
        ),
        (
            lambda ops: ops.MatMul(),
            [(8, 16), (16, 8)],
            lambda: (layout("a", ("b", "c")), layout(("c", "b"), "None")),
            "lies on other axes",
        ),
        (
            lambda ops: ops.MatMul(),
            [(8, 16), (16, 8)],
            lambda: (layout("a", "c"), layout("c", "a")),
            "two dimensions of its result",
        ),
        (
            lambda ops: ops.ReduceSum(),
            [(8, 16)],
            lambda: (layout("a", "None"),),
            "takes no Layout",
        ),
    ],
)
def test_layout_objects_that_mindspore_refuses(refusal, make, shapes, layouts, reason):
    assert reason in refusal(lambda ops: make(ops).shard(layouts()), shapes).reason


def test_a_parameter_that_is_returned_must_be_whole(capture_cell):
    from mindspore import Parameter, Tensor, nn, ops

    from workers.spmd.partition import partition

    class Net(nn.Cell):
        def __init__(self):
            super().__init__()
            self.w = Parameter(Tensor(np.zeros((16, 16), np.float32)), name="w")
            self.matmul = ops.MatMul().shard(((1, 1), (1, 8)))

        def construct(self, x):
            return self.matmul(x, self.w), self.w

    graph = capture_cell(Net, [Tensor(np.ones((8, 16), np.float32))])
    with pytest.raises(ParameterConflictError, match="the network's result"):
        partition(graph, 8)
