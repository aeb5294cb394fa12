"""Every rule of the table: cut in any legal way, an operator gives what it gives uncut.

RULES_SEED draws other shapes, and RULES_STRATEGIES=1000 tries every strategy instead of some.
"""

from __future__ import annotations

import itertools
import os
import random
from dataclasses import replace

import numpy as np
import pytest

DEVICES = (2, 4, 8)
SEED = int(os.environ.get("RULES_SEED", "0"))
STRATEGIES = int(os.environ.get("RULES_STRATEGIES", "4"))  # tried on each number of devices

# Name -> (makes the operator out of mindspore.ops, shapes of its tensors, constant arguments).
# A shape that ends in "i" is of row numbers, in "?" of booleans; tensors in a list go in as one
# tuple. A number among the shapes is a constant tensor.
OPERATORS = {
    "Add": (lambda ops: ops.Add(), [(8, 4, 16), (8, 4, 16)], ()),
    "Add broadcast": (lambda ops: ops.Add(), [(8, 4, 16), (4, 1)], ()),
    "Mul scalar": (lambda ops: ops.Mul(), [(8, 16)], (2.5,)),
    "Maximum": (lambda ops: ops.Maximum(), [(8, 16), (1, 16)], ()),
    "Select": (lambda ops: ops.Select(), [(8, 16, "?"), (8, 16), (8, 16)], ()),
    "MaskedFill": (lambda ops: ops.MaskedFill(), [(8, 16), (16, "?"), 2.0], ()),
    "GeLU": (lambda ops: ops.GeLU(), [(8, 16)], ()),
    "Sigmoid": (lambda ops: ops.Sigmoid(), [(8, 4, 16)], ()),
    "SiLU": (lambda ops: ops.auto_generate.SiLU(), [(8, 16)], ()),
    "PReLU": (lambda ops: ops.PReLU(), [(8, 16, 4), (16,)], ()),
    "MatMul": (lambda ops: ops.MatMul(), [(8, 16), (16, 8)], ()),
    "MatMul transpose_a": (lambda ops: ops.MatMul(True), [(16, 8), (16, 8)], ()),
    "MatMul transpose_b": (lambda ops: ops.MatMul(False, True), [(8, 16), (8, 16)], ()),
    "BatchMatMul": (lambda ops: ops.BatchMatMul(), [(4, 8, 8, 16), (4, 8, 16, 8)], ()),
    "BatchMatMul transpose_b": (
        lambda ops: ops.BatchMatMul(transpose_b=True),
        [(4, 8, 16), (4, 8, 16)],
        (),
    ),
    "BatchMatMul broadcast": (lambda ops: ops.BatchMatMul(), [(4, 8, 8, 16), (16, 8)], ()),
    "MatMulExt": (lambda ops: ops.auto_generate.MatMulExt(), [(4, 8, 16), (16, 8)], ()),
    "Dense": (lambda ops: ops.auto_generate.Dense(), [(8, 4, 16), (8, 16), (8,)], ()),
    "BiasAdd": (lambda ops: ops.BiasAdd(), [(8, 16), (16,)], ()),
    "BiasAdd 4d": (lambda ops: ops.BiasAdd(), [(4, 8, 4, 4), (8,)], ()),
    "Softmax": (lambda ops: ops.Softmax(-1), [(8, 4, 16)], ()),
    "Softmax axis 0": (lambda ops: ops.Softmax(0), [(8, 4, 16)], ()),
    "LogSoftmax": (lambda ops: ops.LogSoftmax(-1), [(8, 16)], ()),
    "CumSum": (lambda ops: ops.CumSum(), [(8, 16)], (1,)),
    "Sort": (lambda ops: ops.Sort(), [(8, 16)], ()),
    "ReverseV2": (lambda ops: ops.ReverseV2((1,)), [(8, 16)], ()),
    "Tril": (lambda ops: ops.Tril(), [(4, 8, 16)], ()),
    "TopK": (lambda ops: ops.TopK(), [(8, 16)], (3,)),
    "LayerNorm": (lambda ops: ops.LayerNorm(-1, -1), [(8, 4, 16), (16,), (16,)], ()),
    "L2Normalize": (lambda ops: ops.L2Normalize(1), [(8, 16)], ()),
    "BatchNorm": (lambda ops: ops.BatchNorm(), [(4, 8, 4, 4), (8,), (8,), (8,), (8,)], ()),
    "Transpose": (lambda ops: ops.Transpose(), [(4, 8, 2, 16)], ((2, 0, 3, 1),)),
    "Gather": (lambda ops: ops.Gather(), [(16, 8), (8, 4, "i")], (0,)),
    "Gather by one dimension": (lambda ops: ops.Gather(), [(16, 8), (8, "i")], (0,)),
    "Gather of odd rows": (lambda ops: ops.Gather(), [(16, 8), (3, 4, "i")], (0,)),
    "Gather axis 1": (lambda ops: ops.Gather(), [(8, 16), (8, 4, "i")], (1,)),
    "Gather in batches": (lambda ops: ops.Gather(1), [(8, 16, 4), (8, 4, "i")], (1,)),
    "GatherNd": (lambda ops: ops.GatherNd(), [(16, 8), (8, 4, 1, "i")], ()),
    "GatherD": (lambda ops: ops.GatherD(), [(8, 16), 1, (8, 4, "i")], ()),
    "OneHot": (lambda ops: ops.OneHot(), [(8, "i"), 16, 1.0, 0.0], ()),
    "OneHot axis 0": (lambda ops: ops.OneHot(0), [(8, "i"), 16, 1.0, 0.0], ()),
    "OneHot 2d": (lambda ops: ops.OneHot(), [(8, 4, "i"), 16, 1.0, 0.0], ()),
    "Conv2D": (lambda ops: ops.Conv2D(8, 3), [(4, 8, 10, 10), (8, 8, 3, 3)], ()),
    "Conv2D same": (
        lambda ops: ops.Conv2D(8, 3, pad_mode="same"),
        [(4, 8, 8, 8), (8, 8, 3, 3)],
        (),
    ),
    "Conv2D groups": (lambda ops: ops.Conv2D(8, 3, group=2), [(4, 8, 9, 9), (8, 4, 3, 3)], ()),
    "MaxPool": (lambda ops: ops.MaxPool(2, 2), [(4, 8, 8, 8)], ()),
    "AvgPool": (lambda ops: ops.AvgPool(3, 2), [(4, 8, 9, 9)], ()),
    "Flatten": (lambda ops: ops.Flatten(), [(8, 4, 2, 2)], ()),
    "ReduceSum": (lambda ops: ops.ReduceSum(), [(8, 16, 4)], (1,)),
    "ReduceSum keep_dims": (lambda ops: ops.ReduceSum(True), [(8, 16, 4)], ((0, 2),)),
    "ReduceMean": (lambda ops: ops.ReduceMean(), [(8, 16)], (-1,)),
    "ReduceMean all": (lambda ops: ops.ReduceMean(), [(8, 16)], ()),
    "ReduceMax": (lambda ops: ops.ReduceMax(), [(8, 16)], (0,)),
    "ReduceMin": (lambda ops: ops.ReduceMin(True), [(8, 16)], (1,)),
    "ReduceProd": (lambda ops: ops.ReduceProd(), [(8, 4)], (1,)),
    "ReduceAll": (lambda ops: ops.ReduceAll(), [(8, 16, "?")], (1,)),
    "ReduceAny": (lambda ops: ops.ReduceAny(), [(8, 16, "?")], (0,)),
    "Argmax": (lambda ops: ops.Argmax(-1), [(8, 16)], ()),
    "ArgMaxWithValue": (lambda ops: ops.ArgMaxWithValue(1), [(8, 16)], ()),
    "Concat": (lambda ops: ops.Concat(1), [[(8, 4, 16), (8, 8, 16)]], ()),
    "Concat axis 0": (lambda ops: ops.Concat(0), [[(8, 16), (4, 16)]], ()),
    "Stack": (lambda ops: ops.Stack(1), [[(8, 16), (8, 16)]], ()),
    "Unstack": (lambda ops: ops.Unstack(0), [(8, 16)], ()),
    "Split": (lambda ops: ops.Split(1, 4), [(8, 16)], ()),
    "ExpandDims": (lambda ops: ops.ExpandDims(), [(8, 16)], (1,)),
    "Squeeze": (lambda ops: ops.Squeeze(1), [(8, 1, 16)], ()),
    "StridedSlice": (lambda ops: ops.StridedSlice(), [(8, 16)], ((0, 2), (8, 6), (1, 1))),
    "StridedSlice steps": (lambda ops: ops.StridedSlice(), [(8, 8)], ((0, 0), (8, 8), (1, 2))),
    "StridedSlice shrunk": (
        lambda ops: ops.StridedSlice(shrink_axis_mask=2, end_mask=5),
        [(8, 16, 4)],
        ((0, 3, 0), (0, 4, 0), (1, 1, 1)),
    ),
    "Slice": (lambda ops: ops.Slice(), [(8, 16)], ((0, 2), (8, 6))),
    "Tile": (lambda ops: ops.Tile(), [(8, 16)], ((1, 4),)),
    "Tile a new dimension": (lambda ops: ops.Tile(), [(8, 16)], ((4, 1, 2),)),
    "BroadcastTo": (lambda ops: ops.BroadcastTo((4, 8, 16)), [(8, 1)], ()),
}


# Kernels of products sum in another order for matrices of other sizes; all else is bit for bit.
PRODUCTS = ("MatMul", "BatchMatMul", "Dense", "Conv2D")
# Operators that say sizes of their tensors besides the shapes.
OF_GIVEN_SIZES = ("Conv2D", "Split", "StridedSlice", "Slice", "BroadcastTo")


def _scaled(name, shapes):
    """Return other shapes of which the same dimensions are equal."""
    if name.startswith(OF_GIVEN_SIZES):
        return shapes
    draw = random.Random(f"{name} {SEED}")
    sizes = {size: size * draw.choice((1, 2, 3)) for size in (2, 4, 8, 16)}

    def scaled(shape):
        if isinstance(shape, list):
            return [scaled(item) for item in shape]
        return tuple(sizes.get(x, x) for x in shape) if isinstance(shape, tuple) else shape

    return [scaled(shape) for shape in shapes]


def _tensor(shape, rng):
    import mindspore

    if not isinstance(shape, tuple):
        return shape if isinstance(shape, int) else mindspore.Tensor(shape, mindspore.float32)
    if shape[-1] == "i":
        return mindspore.Tensor(rng.randint(0, 16, shape[:-1]).astype(np.int32))
    if shape[-1] == "?":
        return mindspore.Tensor(rng.rand(*shape[:-1]) > 0.5)
    return mindspore.Tensor(np.abs(rng.randn(*shape)).astype(np.float32))


def _strategies(node, devices):
    """Return some strategies that are allowed for a node, all where there are few."""
    from workers.spmd.division import entries_of
    from workers.spmd.errors import StrategyError
    from workers.spmd.rules import rule_of
    from workers.spmd.strategy import divide

    entries = entries_of(node, rule_of(node, devices))
    found = sorted({label for dims, _ in entries for label in dims if label is not None})
    powers = [n for n in (1, 2, 4, 8) if n <= devices]
    legal = []
    for counts in itertools.product(powers, repeat=len(found)):
        split = dict(zip(found, counts, strict=True))
        strategy = tuple(tuple(split.get(x, 1) for x in dims) for dims, _ in entries)
        cut = replace(node, attributes={**node.attributes, "in_strategy": strategy})
        try:
            divide(cut, rule_of(cut, devices), devices)
        except StrategyError:
            continue
        legal.append(cut)
    return random.Random(devices).sample(legal, min(STRATEGIES, len(legal)))


@pytest.mark.parametrize("name", OPERATORS)
def test_any_legal_strategy_gives_the_uncut_answer(name, capture_cell, lockstep):
    from mindspore import Tensor, nn, ops

    from workers.spmd.partition import partition
    from workers.spmd.program import Reduce
    from workers.spmd.rules import rule_of

    make, shapes, constants = OPERATORS[name]
    shapes = _scaled(name, shapes)
    packed = isinstance(shapes[0], list)
    rng = np.random.RandomState(7)
    operands = [_tensor(shape, rng) for shape in (shapes[0] if packed else shapes)]
    fixed = [x if s is x or isinstance(s, float) else None for x, s in zip(operands, shapes)]

    class Net(nn.Cell):
        def __init__(self):
            super().__init__()
            self.operator = make(ops)

        def construct(self, *tensors):
            if packed:
                return self.operator(tensors)
            given = ()
            number = 0
            for constant in fixed:
                if constant is None:
                    given += (tensors[number],)
                    number += 1
                else:
                    given += (constant,)
            return self.operator(*given, *constants)

    inputs = [x for x in operands if isinstance(x, Tensor) and x.ndim]
    graph = capture_cell(Net, inputs)
    (node,) = [n for n in graph.nodes if n.op == name.split()[0]]
    assert rule_of(node, 8).known
    whole = lockstep(partition(graph, 1), {}, inputs)[0]
    tried = 0
    for devices in DEVICES:
        for cut in _strategies(node, devices):
            nodes = tuple(cut if n is node else n for n in graph.nodes)
            program = partition(replace(graph, nodes=nodes), devices)
            tried += 1
            for answer in lockstep(program, {}, inputs):
                pairs = zip(answer, whole, strict=True)
                if name == "BatchNorm":  # its other results are for training, and not filled
                    pairs = [next(pairs)]
                reduced = any(isinstance(step, Reduce) for step in program.steps)
                tolerance = 1e-5 if reduced or name.startswith(PRODUCTS) else 0
                for found, wanted in pairs:
                    tried_as = f"{shapes} by {cut.attributes['in_strategy']} on {devices}"
                    np.testing.assert_allclose(
                        found, wanted, rtol=tolerance, atol=tolerance, err_msg=tried_as
                    )
    assert tried >= 3
