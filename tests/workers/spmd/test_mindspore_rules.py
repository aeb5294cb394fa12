"""Layouts that MindSpore 2.10 gives parameters, one operator at a time, on 8 devices."""

from __future__ import annotations

import numpy as np
import pytest

F, N = "float32", "int32"  # types of the operands


@pytest.fixture
def layouts(capture_cell):
    """Return device matrix and tensor map of each operand of an operator on parameters."""

    def find(make, operands, strategy=None, out_strategy=None):
        from mindspore import Parameter, Tensor, nn, ops

        from workers.spmd.partition import partition

        class Net(nn.Cell):
            def __init__(self):
                super().__init__()
                self.operator = make(ops)
                if strategy is not None:
                    shard = (strategy, out_strategy) if out_strategy else (strategy,)
                    self.operator.shard(*shard)
                for number, operand in enumerate(operands):
                    if isinstance(operand, tuple) and isinstance(operand[-1], str):
                        *shape, dtype = operand
                        array = np.zeros(shape, dtype)
                        parameter = Parameter(Tensor(array), name=f"p{number}")
                        setattr(self, f"p{number}", parameter)
                    else:
                        setattr(self, f"p{number}", operand)
                self.count = len(operands)

            def construct(self, x):
                if self.count == 1:
                    return self.operator(self.p0)
                if self.count == 2:
                    return self.operator(self.p0, self.p1)
                return self.operator(self.p0, self.p1, self.p2)

        graph = capture_cell(Net, [Tensor(np.zeros((8, 8), np.float32))])
        program = partition(graph, 8)
        found = [
            (list(placed.layout.device_matrix), list(placed.layout.tensor_map))
            for placed in program.parameters.values()
        ]
        return found, program

    return find


CASES = {
    "equal strategies over all devices: factors are gathered, not contracted": (
        lambda ops: ops.MatMul(),
        [(64, 96, F), (96, 16, F)],
        ((2, 4), (2, 4)),
        [([2, 4], [1, 0]), ([2, 4], [1, 0])],
    ),
    "but not over some of them": (
        lambda ops: ops.MatMul(),
        [(64, 96, F), (96, 16, F)],
        ((2, 2), (2, 2)),
        [([2, 2, 2], [2, 1]), ([2, 2, 2], [1, 0])],
    ),
    "a generated strategy of batch products splits what both have": (
        lambda ops: ops.BatchMatMul(),
        [(8, 64, 96, F), (8, 96, 16, F)],
        None,
        [([8], [0, -1, -1]), ([8], [0, -1, -1])],
    ),
    "rows of a table on four devices: the repeated axis is the first": (
        lambda ops: ops.Gather(),
        [(256, 64, F), (8, 8, N), 0],
        ((4, 1), (1, 1)),
        [([2, 4], [0, -1]), ([2, 4], [-1, -1])],
    ),
    "rows and indices together": (
        lambda ops: ops.Gather(),
        [(256, 64, F), (8, 8, N), 0],
        ((4, 1), (2, 1)),
        [([2, 4], [0, -1]), ([2, 4], [1, -1])],
    ),
    "an embedding of mint splits its table by itself": (
        lambda ops: ops.auto_generate.Embedding(),
        [(8, 4, N), (256, 64, F)],
        None,
        [([8], [-1, -1]), ([8], [0, -1])],
    ),
    "no rule, no strategy: all rows over all devices": (
        lambda ops: ops.Flatten(),
        [(16, 4, 2, F)],
        ((2, 4, 1),),
        [([8], [0, -1, -1])],
    ),
    "or nothing": (lambda ops: ops.Flatten(), [(12, 4, 2, F)], ((2, 4, 1),), [([8], [-1, -1, -1])]),
    "a repeated dimension is split by its repetitions": (
        lambda ops: ops.Tile(),
        [(8, 16, F), (8, 1)],
        ((2, 4),),
        [([2, 4], [-1, 0])],
    ),
    "channels of a convolution come after its image": (
        lambda ops: ops.Conv2D(32, 3),
        [(8, 16, 8, 8, F), (32, 16, 3, 3, F)],
        ((2, 2, 1, 1), (2, 2, 1, 1)),
        [([2, 2, 2], [2, 1, -1, -1]), ([2, 2, 2], [0, 1, -1, -1])],
    ),
    "a normalised dimension of RmsNorm may be split": (
        lambda ops: ops.RmsNorm(),
        [(8, 16, 32, F), (32, F)],
        ((2, 2, 2), (2,)),
        [([2, 2, 2], [2, 1, 0]), ([2, 2, 2], [0])],
    ),
    "a strategy on the reshape of a parameter": (
        lambda ops: ops.Reshape().add_prim_attr("in_strategy", ((2, 1, 1),)),
        [(16, 4, 4, F), (16, 16)],
        None,
        [([4, 2], [0, -1, -1])],
    ),
    "a parameter that is reshaped only": (
        lambda ops: ops.Reshape(),
        [(256, F), (16, 16)],
        None,
        [([8], [0])],
    ),
    "if devices divide its rows": (
        lambda ops: ops.Reshape(),
        [(4, 64, F), (16, 16)],
        None,
        [([8], [-1, -1])],
    ),
}


@pytest.mark.parametrize("case", CASES)
def test_layouts_of_parameters(case, layouts):
    make, operands, strategy, wanted = CASES[case]
    found, _ = layouts(make, operands, strategy)
    assert found == wanted


def test_axes_of_one_device_are_not_reported(layouts):
    from mindspore import Layout

    layout = Layout((2, 1, 4), ("a", "b", "c"))
    found, _ = layouts(
        lambda ops: ops.MatMul(),
        [(8, 16, F), (16, 8, F)],
        (layout("a", "b"), layout("b", "c")),
    )
    assert found == [([2, 4], [1, -1]), ([2, 4], [-1, 0])]


def reduced(program):
    from workers.spmd.program import Reduce

    (step,) = [step for step in program.steps if isinstance(step, Reduce)]
    return step.kind, step.target.layout.split_counts


@pytest.mark.parametrize(
    "make, operands, strategy, out_strategy, wanted, received",
    [
        (
            lambda ops: ops.MatMul(),
            [(8, 16, F), (16, 8, F)],
            ((2, 4), (4, 1)),
            ((8, 1),),
            (8, 1),
            3 * 8 * 4,
        ),
        (
            lambda ops: ops.Gather(),
            [(256, 64, F), (8, 8, N), 0],
            ((8, 1), (1, 1)),
            None,
            (8, 1, 1),
            7 * 8 * 64 * 4,
        ),
    ],
)
def test_a_contraction_may_leave_its_result_split(
    layouts, make, operands, strategy, out_strategy, wanted, received
):
    from workers.layout_report import report

    _, program = layouts(make, operands, strategy, out_strategy)
    assert reduced(program) == ("ReduceScatter", wanted)
    (collective,) = [c for c in report((program,))["collectives"] if c["op"] == "ReduceScatter"]
    assert collective["bytes"] == received


@pytest.mark.parametrize(
    "rows, out_strategy", [(6, None), (8, ((1, 1, 1),))], ids=["rows do not divide", "asked whole"]
)
def test_or_whole(layouts, rows, out_strategy):
    operands = [(256, 64, F), (rows, 8, N), 0]
    _, program = layouts(lambda ops: ops.Gather(), operands, ((8, 1), (1, 1)), out_strategy)
    assert reduced(program) == ("AllReduce", (1, 1, 1))


@pytest.mark.parametrize("product_last, wanted", [(False, [8]), (True, [2, 4])])
def test_behind_casts_the_last_user_of_a_parameter_is_reported(
    capture_cell, product_last, wanted
):
    import mindspore
    from mindspore import Parameter, Tensor, nn, ops

    from workers.spmd.partition import partition

    class Net(nn.Cell):
        def __init__(self):
            super().__init__()
            self.w = Parameter(Tensor(np.zeros((8, 16), np.float32)), name="w")
            self.matmul = ops.MatMul().shard(((2, 1), (1, 1)))
            self.add = ops.Add().shard(((1, 1), (1, 1)))

        def construct(self, x):
            w = ops.cast(self.w, mindspore.float16)
            product, total = self.matmul(ops.cast(x, mindspore.float16), w), self.add(w, w)
            return (total, product) if product_last else (product, total)

    graph = capture_cell(Net, [Tensor(np.zeros((8, 8), np.float32))])
    assert list(partition(graph, 8).parameters["w"].layout.device_matrix) == wanted
