"""Strategies that MindSpore refuses are refused, with the operator and the reason."""

from __future__ import annotations

import numpy as np
import pytest

from workers.spmd.errors import StrategyError
from workers.spmd.graph import Constant, Node, Value
from workers.spmd.rules import rule_of
from workers.spmd.strategy import divide


def matmul(strategy, left=(8, 16), right=(16, 8)):
    a, b = Value("a", left, "Float32"), Value("b", right, "Float32")
    out = Value("y", (left[0], right[1]), "Float32")
    flags = (Constant(False), Constant(False))
    attributes = {"in_strategy": strategy} if strategy else {}
    return Node("MatMul", "fc-Dense/MatMul-op0", (a, b, *flags), (out,), attributes)


def division_of(node, devices=8):
    return divide(node, rule_of(node, 8), devices)


@pytest.mark.parametrize(
    "strategy, reason",
    [
        (((2, 2), (4, 1)), "dimension 0 of input 1 is split 4 ways, but dimension 1 of input 0"),
        (((2, 1),), "1 entries, but the operator has 2 tensor inputs"),
        (((2, 1, 1), (1, 4)), "has 3 numbers, but its shape"),
        (((16, 1), (1, 1)), "8 elements, which 16 devices do not divide"),
        (((8, 1), (1, 8)), "uses 64 devices"),
        (((0, 1), (1, 1)), "0 devices"),
    ],
)
def test_what_matmul_refuses(strategy, reason):
    with pytest.raises(StrategyError, match=reason) as caught:
        division_of(matmul(strategy))
    assert caught.value.operator == "MatMul (fc-Dense/MatMul-op0)"


def test_splits_that_are_no_powers_of_two_are_refused_on_eight_devices_only():
    with pytest.raises(StrategyError, match="powers of 2"):
        division_of(matmul(((3, 1), (1, 1)), left=(12, 16)))
    division = division_of(matmul(((3, 1), (1, 1)), left=(12, 16)), devices=6)
    assert division.device_matrix == (3, 2)


def test_an_axis_that_softmax_computes_along_must_stay_whole():
    x = Value("x", (8, 16), "Float32")
    node = Node("Softmax", "", (x, Constant((-1,))), (x,), {"in_strategy": ((1, 2),)})
    with pytest.raises(StrategyError, match="computes along it"):
        division_of(node)


def test_unused_devices_repeat_the_computation_on_the_last_axis():
    division = division_of(matmul(((1, 1), (1, 4))))
    assert division.device_matrix == (4, 2)
    assert division.layout(("k", "n")).tensor_map == (-1, 1)


def test_for_a_table_split_by_rows_they_are_the_first_axis():
    table, rows = Value("t", (16, 8), "Float32"), Value("i", (4,), "Int32")
    out = Value("y", (4, 8), "Float32")
    strategy = {"in_strategy": ((4, 1), (1,))}
    node = Node("Gather", "", (table, rows, Constant(0)), (out,), strategy)
    layout = division_of(node).layout(("c0", "c1"))
    assert (layout.device_matrix, layout.tensor_map) == ((2, 4), (0, -1))


def test_without_a_strategy_the_batch_is_split_as_far_as_it_divides():
    division = division_of(matmul(None, left=(12, 16)))
    assert division.generated
    assert division.strategy == ((4, 1), (1, 1))


def test_layout_objects_must_name_all_devices():
    layout = {"device_matrix": (2, 2), "tensor_map": (1, -1), "interleaved_parallel": False}
    node = matmul(None)
    node.attributes["in_layout"] = (layout, layout)
    with pytest.raises(StrategyError, match="4 devices; there are 8"):
        division_of(node)


def test_an_operator_of_mindspore_without_a_rule_here_divides_its_parameters_only():
    x = Value("x", (8, 16), "Float32")
    node = Node("GroupNorm", "", (x, x), (x,), {"in_strategy": ((2, 4), (2, 4))})
    signature = rule_of(node, 8)
    division = divide(node, signature, 8)
    assert not signature.known
    for dims, at_work in zip(signature.inputs, signature.at_work, strict=True):
        assert division.layout(dims).split_counts == (2, 4)
        assert division.layout(at_work).split_counts == (1, 1)


def test_constants_count_as_inputs_when_they_are_tensors():
    x = Value("x", (8, 16), "Float32")
    scalar = Constant(np.array(2, np.float32), "Float32")
    node = Node("Mul", "", (x, scalar), (x,), {"in_strategy": ((2, 4), ())})
    assert division_of(node).strategy == ((2, 4), ())
