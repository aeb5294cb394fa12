"""Partitioned programs against those that MindSpore 2.10 compiled, and by execution."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from workers.spmd.errors import ParameterConflictError

FIXTURES = Path(__file__).parents[2] / "fixtures"
CASES = sorted(p.parent.name for p in FIXTURES.glob("*/program.json"))


@pytest.mark.parametrize("case", CASES)
def test_layouts_operators_and_answer_are_those_of_mindspore(
    case, known_layouts, capture_case, lockstep
):
    from workers.spmd.partition import partition

    known = known_layouts(case)
    graph, data = capture_case(case, known["device_num"])
    program = partition(graph, known["device_num"])

    for name, placed in program.parameters.items():
        wanted = known["predict_layout"][name]
        assert list(placed.layout.device_matrix) == wanted[0], name
        assert list(placed.layout.tensor_map) == wanted[1], name
        assert list(placed.local.shape) == wanted[2], name
        assert list(placed.value.shape) == wanted[6], name
    compiled = json.loads((FIXTURES / case / "program.json").read_text())["operators"]
    # MindSpore rewrites some operators before it lists them: a MatMul with Layout objects is
    # missing there, a masked Gather comes with its Sub, a Concat with its MakeTuple.
    shown = {"_VirtualDataset", "_VirtualOutput", "Sub", "MakeTuple"}
    wanted_ops = sorted(
        (o["op"], str(o["strategy"]), o["generated"]) for o in compiled if o["op"] not in shown
    )
    ours = sorted(
        (o.node.op, str([list(e) for e in o.division.strategy]), o.division.generated)
        for o in program.operators
        if "in_layout" not in o.node.attributes
    )
    assert ours == wanted_ops

    reference = np.load(FIXTURES / case / "reference.npz")
    weights = {name: reference["param:" + name] for name in program.parameters}
    answers = [outputs[0] for outputs in lockstep(program, weights, [data])]
    for answer in answers:
        np.testing.assert_array_equal(answer, answers[0])
    scale = np.abs(reference["y"]).max()
    np.testing.assert_allclose(answers[0], reference["y"], rtol=0, atol=1e-5 * scale)


def test_a_parameter_that_two_operators_cut_differently_is_refused(capture_case):
    from workers.spmd.partition import partition

    graph, _ = capture_case("tied_conflict", 8)
    with pytest.raises(ParameterConflictError, match="table has multiple users") as caught:
        partition(graph, 8)
    assert caught.value.parameter == "table"


def test_three_devices_will_do_although_hccl_has_no_such_number(capture_case, lockstep):
    from workers.spmd.partition import partition

    graph, data = capture_case("lenet_none", 3)
    program = partition(graph, 3)
    reference = np.load(FIXTURES / "lenet_none" / "reference.npz")
    weights = {name: reference["param:" + name] for name in program.parameters}
    scale = np.abs(reference["y"]).max()
    for (answer,) in lockstep(program, weights, [data]):
        np.testing.assert_allclose(answer, reference["y"], rtol=0, atol=1e-5 * scale)


def test_a_transformer_block_costs_two_all_reduces_and_one_all_gather(capture_case):
    from workers.layout_report import report
    from workers.spmd.partition import partition

    graph, _ = capture_case("transformer_dp2_mp4", 8)
    collectives = report((partition(graph, 8),))["collectives"]
    assert [(c["op"], c["rank_size"]) for c in collectives] == [
        ("AllReduce", 4),
        ("AllReduce", 4),
        ("AllGather", 2),
    ]


def test_tensors_of_a_size_that_the_data_decide_stay_whole(capture_cell, lockstep):
    from mindspore import Parameter, Tensor, nn, ops

    from workers.spmd.partition import partition

    weight = np.random.RandomState(1).rand(16, 16).astype(np.float32)

    class Net(nn.Cell):
        def __init__(self):
            super().__init__()
            self.weight = Parameter(Tensor(weight), name="weight")
            self.matmul = ops.MatMul().shard(((1, 4), (4, 2)))

        def construct(self, x):
            chosen = ops.masked_select(x, x > 0)
            rows = ops.gather(x, ops.nonzero(x[:, 0] > 0).reshape(-1), 0)
            return ops.cat((chosen, chosen)), chosen[:-1].sum(), self.matmul(rows, self.weight)

    x = np.random.RandomState(0).randn(8, 16).astype(np.float32)
    program = partition(capture_cell(Net, [Tensor(x)]), 8)
    assert program.parameters["weight"].local.shape == (4, 8)
    chosen, rows = x[x > 0], x[x[:, 0] > 0]
    for twice, total, product in lockstep(program, {"weight": weight}, [Tensor(x)]):
        np.testing.assert_array_equal(twice, np.concatenate((chosen, chosen)))
        np.testing.assert_allclose(total, chosen[:-1].sum(), rtol=1e-5)
        np.testing.assert_allclose(product, rows @ weight, rtol=1e-5)
