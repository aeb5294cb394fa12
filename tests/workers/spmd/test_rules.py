"""Every rule of the table: cut in any legal way, an operator gives what it gives uncut."""

from __future__ import annotations

import itertools
import random
from dataclasses import replace

import numpy as np
import pytest

DEVICES = (2, 4, 8)


def _operators():
    """Name -> (makes the operator, shapes of its tensors, its constant arguments).

    A shape that ends in "i" is of row numbers; tensors in a list go in as one tuple.
    """
    from mindspore import ops

    return {
        "Add": (ops.Add, [(8, 4, 16), (8, 4, 16)], ()),
        "Add broadcast": (ops.Add, [(8, 4, 16), (4, 1)], ()),
        "Mul scalar": (ops.Mul, [(8, 16)], (2.5,)),
        "Maximum": (ops.Maximum, [(8, 16), (1, 16)], ()),
        "GeLU": (ops.GeLU, [(8, 16)], ()),
        "Sigmoid": (ops.Sigmoid, [(8, 4, 16)], ()),
        "MatMul": (ops.MatMul, [(8, 16), (16, 8)], ()),
        "MatMul transpose_a": (lambda: ops.MatMul(True), [(16, 8), (16, 8)], ()),
        "MatMul transpose_b": (lambda: ops.MatMul(False, True), [(8, 16), (8, 16)], ()),
        "BatchMatMul": (ops.BatchMatMul, [(4, 8, 8, 16), (4, 8, 16, 8)], ()),
        "BatchMatMul transpose_b": (
            lambda: ops.BatchMatMul(transpose_b=True),
            [(4, 8, 16), (4, 8, 16)],
            (),
        ),
        "BiasAdd": (ops.BiasAdd, [(8, 16), (16,)], ()),
        "BiasAdd 4d": (ops.BiasAdd, [(4, 8, 4, 4), (8,)], ()),
        "Softmax": (lambda: ops.Softmax(-1), [(8, 4, 16)], ()),
        "Softmax axis 0": (lambda: ops.Softmax(0), [(8, 4, 16)], ()),
        "LogSoftmax": (lambda: ops.LogSoftmax(-1), [(8, 16)], ()),
        "LayerNorm": (lambda: ops.LayerNorm(-1, -1), [(8, 4, 16), (16,), (16,)], ()),
        "Transpose": (ops.Transpose, [(4, 8, 2, 16)], ((2, 0, 3, 1),)),
        "Gather": (ops.Gather, [(16, 8), (8, 4, "i")], (0,)),
        "Gather axis 1": (ops.Gather, [(8, 16), (8, 4, "i")], (1,)),
        "Conv2D": (lambda: ops.Conv2D(8, 3), [(4, 8, 9, 9), (8, 8, 3, 3)], ()),
        "Conv2D groups": (lambda: ops.Conv2D(8, 3, group=2), [(4, 8, 9, 9), (8, 4, 3, 3)], ()),
        "MaxPool": (lambda: ops.MaxPool(2, 2), [(4, 8, 8, 8)], ()),
        "AvgPool": (lambda: ops.AvgPool(3, 2), [(4, 8, 9, 9)], ()),
        "Flatten": (ops.Flatten, [(8, 4, 2, 2)], ()),
        "ReduceSum": (ops.ReduceSum, [(8, 16, 4)], (1,)),
        "ReduceSum keep_dims": (lambda: ops.ReduceSum(True), [(8, 16, 4)], ((0, 2),)),
        "ReduceMean": (ops.ReduceMean, [(8, 16)], (-1,)),
        "ReduceMean all": (ops.ReduceMean, [(8, 16)], ()),
        "ReduceMax": (ops.ReduceMax, [(8, 16)], (0,)),
        "ReduceMin": (lambda: ops.ReduceMin(True), [(8, 16)], (1,)),
        "Argmax": (lambda: ops.Argmax(-1), [(8, 16)], ()),
        "ArgMaxWithValue": (lambda: ops.ArgMaxWithValue(1), [(8, 16)], ()),
        "Concat": (lambda: ops.Concat(1), [[(8, 4, 16), (8, 8, 16)]], ()),
        "Concat axis 0": (lambda: ops.Concat(0), [[(8, 16), (4, 16)]], ()),
        "Stack": (lambda: ops.Stack(1), [[(8, 16), (8, 16)]], ()),
        "ExpandDims": (ops.ExpandDims, [(8, 16)], (1,)),
        "Squeeze": (lambda: ops.Squeeze(1), [(8, 1, 16)], ()),
        "Split": (lambda: ops.Split(1, 4), [(8, 16)], ()),
        "TopK": (ops.TopK, [(8, 16)], (3,)),
        "StridedSlice": (ops.StridedSlice, [(8, 16, 4)], ((0, 2, 0), (8, 6, 4), (1, 1, 1))),
        "StridedSlice steps": (ops.StridedSlice, [(8, 16, 4)], ((0, 0, 0), (8, 16, 4), (1, 1, 2))),
        "BatchNorm": (ops.BatchNorm, [(4, 8, 4, 4), (8,), (8,), (8,), (8,)], ()),
        "BroadcastTo": (lambda: ops.BroadcastTo((4, 8, 16)), [(8, 1)], ()),
        "CumSum": (ops.CumSum, [(8, 16)], (1,)),
    }


NAMES = (  # known without importing mindspore when pytest collects
    "Add,Add broadcast,Mul scalar,Maximum,GeLU,Sigmoid,MatMul,MatMul transpose_a,"
    "MatMul transpose_b,BatchMatMul,BatchMatMul transpose_b,BiasAdd,BiasAdd 4d,Softmax,"
    "Softmax axis 0,LogSoftmax,LayerNorm,Transpose,Gather,Gather axis 1,Conv2D,Conv2D groups,"
    "MaxPool,AvgPool,Flatten,ReduceSum,ReduceSum keep_dims,ReduceMean,ReduceMean all,ReduceMax,"
    "ReduceMin,Argmax,ArgMaxWithValue,Concat,Concat axis 0,Stack,ExpandDims,Squeeze,"
    "Split,TopK,StridedSlice,StridedSlice steps,BatchNorm,BroadcastTo,CumSum"
).split(",")


def test_every_operator_of_this_file_is_tried():
    assert sorted(_operators()) == sorted(NAMES)


def _tensor(shape, rng):
    import mindspore

    if shape[-1] == "i":
        return mindspore.Tensor(rng.randint(0, 16, shape[:-1]).astype(np.int32))
    return mindspore.Tensor(np.abs(rng.randn(*shape)).astype(np.float32))


def _strategies(node, signature, devices, count=6):
    """Return some legal strategies for a node: all where there are few."""
    from workers.spmd.graph import shape_of

    sizes = {}
    for tensor, dims in zip(node.tensors, signature.inputs, strict=True):
        for label, size in zip(dims, shape_of(tensor), strict=True):
            if label is not None:
                sizes.setdefault(label, size)
    choices = [
        [n for n in (1, 2, 4, 8) if size % n == 0 and (n == 1 or label not in signature.whole)]
        for label, size in sizes.items()
    ]
    legal = []
    for counts in itertools.product(*choices):
        if np.prod(counts) <= devices:
            split = dict(zip(sizes, counts, strict=True))
            legal.append(tuple(tuple(split.get(x, 1) for x in d) for d in signature.inputs))
    return random.Random(devices).sample(legal, min(count, len(legal)))


@pytest.mark.parametrize("name", NAMES)
def test_any_legal_strategy_gives_the_uncut_answer(name, capture_cell, lockstep):
    from mindspore import nn

    from workers.spmd.partition import partition
    from workers.spmd.rules import rule_of

    make, shapes, constants = _operators()[name]

    class Plain(nn.Cell):
        def __init__(self):
            super().__init__()
            self.operator, self.constants = make(), constants

        def construct(self, *tensors):
            return self.operator(*tensors, *self.constants)

    class Packed(Plain):
        def construct(self, *tensors):
            return self.operator(tensors)

    rng = np.random.RandomState(7)
    packed = isinstance(shapes[0], list)
    inputs = [_tensor(shape, rng) for shape in (shapes[0] if packed else shapes)]
    graph = capture_cell(Packed if packed else Plain, inputs)
    (node,) = [n for n in graph.nodes if n.op == name.split()[0]]
    signature = rule_of(node)
    assert signature is not None
    whole = lockstep(partition(graph, 1), {}, inputs)[0]
    for devices in DEVICES:
        for strategy in _strategies(node, signature, devices):
            cut = replace(node, attributes={**node.attributes, "in_strategy": strategy})
            nodes = tuple(cut if n is node else n for n in graph.nodes)
            program = partition(replace(graph, nodes=nodes), devices)
            for answer in lockstep(program, {}, inputs):
                pairs = zip(answer, whole, strict=True)
                if name == "BatchNorm":  # its other results are for training, and not filled
                    pairs = [next(pairs)]
                for found, wanted in pairs:
                    np.testing.assert_allclose(
                        found, wanted, rtol=1e-5, atol=1e-5, err_msg=f"{strategy} on {devices}"
                    )
