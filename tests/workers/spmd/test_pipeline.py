"""Networks in pipeline stages: where parameters lie, what is sent, and the answer."""

from __future__ import annotations

from pathlib import Path

import mindspore as ms
import numpy as np
import pytest
from mindspore import Parameter, Tensor, nn, ops

from workers.resharding.strategy_file import read_strategy_file
from workers.spmd.errors import ParameterConflictError, StrategyError

FIXTURES = Path(__file__).parents[2] / "fixtures"


def numbers(*shape, seed=0):
    return np.random.RandomState(seed).randn(*shape).astype(np.float32) / 4


def parameter(name, *shape):
    return Parameter(Tensor(numbers(*shape, seed=len(name))), name=name)


class Layer(nn.Cell):
    """relu(x @ w) with strategies of its own, in a stage."""

    def __init__(self, name, stage, strategy=((1, 1), (1, 1))):
        super().__init__()
        self.w = parameter(name, 16, 16)
        self.matmul, self.relu = ops.MatMul().shard(strategy), ops.ReLU()
        if stage is not None:
            self.pipeline_stage = stage

    def construct(self, x):
        return self.relu(self.matmul(x, self.w))


class Chain(nn.Cell):
    def __init__(self, *layers):
        super().__init__()
        self.layers = nn.CellList(list(layers))

    def construct(self, x):
        for layer in self.layers:
            x = layer(x)
        return x


class Chosen(nn.Cell):
    """The second stage gets as many numbers as the data of the first one decide."""

    def __init__(self):
        super().__init__()
        self.first, self.second = Layer("first", 0), nn.ReLU()
        self.second.pipeline_stage = 1

    def construct(self, x):
        x = self.first(x)
        return self.second(ops.masked_select(x, x > 0))


@pytest.fixture
def divided(capture_cell):
    """Return the programs of a network, by stage."""
    from workers.spmd.pipeline import divide_network

    def run(make, inputs, stages, devices=8):
        return divide_network(capture_cell(make, inputs, devices), devices, stages)

    return run


@pytest.fixture
def same_as_alone(divided, lockstep):
    """Check that the ranks of all stages compute what MindSpore computes in one process."""
    from mindspore import PYNATIVE_MODE, set_context

    def check(make, inputs, stages, devices=8):
        programs = divided(make, inputs, stages, devices)
        set_context(mode=PYNATIVE_MODE)
        network = make()
        weights = {p.name: p.asnumpy() for p in network.get_parameters()}
        right = network(*inputs)
        right = right if isinstance(right, tuple) else (right,)
        answers = lockstep(programs, weights, inputs)
        assert len(answers) == devices
        for answer in answers:
            for found, wanted in zip(answer, right, strict=True):
                np.testing.assert_allclose(found, wanted.asnumpy(), rtol=1e-5, atol=1e-6)
        return programs

    return check


X = Tensor(numbers(8, 16))


def test_a_staged_network_lies_as_mindspore_trained_it(divided, monkeypatch):
    monkeypatch.syspath_prepend(str(FIXTURES))
    import networks

    programs = divided(networks.TwoStageMLP, [networks.floats(16, 64)], 2)
    found = {name: p.layout for program in programs for name, p in program.parameters.items()}
    trained = read_strategy_file(FIXTURES / "two_stage_mlp/train/train_strategy.ckpt")
    assert len(found) == 4 and found == {name: trained[name] for name in found}


@pytest.mark.parametrize("stages, devices", [(2, 4), (4, 4), (2, 8), (4, 8)])
def test_each_stage_has_strategies_and_ranks_of_its_own(same_as_alone, stages, devices):
    size = devices // stages
    ways = [((size, 1), (1, 1)), ((1, 1), (1, size)), ((1, size), (size, 1)), ((1, 1), (1, 1))]

    def make():
        return Chain(*(Layer(f"w{i}", i, ways[i]) for i in range(stages)))

    programs = same_as_alone(make, [X], stages, devices)
    for stage, program in enumerate(programs):
        (placed,) = program.parameters.values()
        assert placed.layout.ranks == tuple(range(stage * size, (stage + 1) * size))


class Tied(nn.Cell):
    """A table that the first stage looks up, and the last one multiplies with."""

    def __init__(self, stages, head=((2, 1), (1, 1))):
        super().__init__()
        self.table = parameter("table", 32, 16)
        self.gather, self.add = ops.Gather().shard(((1, 1), (2,))), ops.Add()
        self.position = parameter("position", 6, 16)
        self.middle = Chain(*(Layer(f"w{i}", i) for i in range(1, stages - 1)))
        self.head = Head(stages - 1, head)
        self.lookup = LookUp(self.gather, self.add)

    def construct(self, ids):
        return self.head(self.middle(self.lookup(self.table, ids, self.position)), self.table)


class LookUp(nn.Cell):
    def __init__(self, gather, add):
        super().__init__()
        self.gather, self.add, self.pipeline_stage = gather, add, 0

    def construct(self, table, ids, position):
        return self.add(self.gather(table, ids, 0), position)


class Head(nn.Cell):
    def __init__(self, stage, strategy):
        super().__init__()
        self.matmul, self.pipeline_stage = ops.MatMul(transpose_b=True).shard(strategy), stage

    def construct(self, x, table):
        return self.matmul(x, table)


IDS = Tensor(np.array([3, 1, 4, 1, 5, 9], np.int32))


def test_a_table_of_the_first_and_the_last_stage_lies_in_both(same_as_alone):
    programs = same_as_alone(lambda: Tied(4), [IDS], 4)
    assert [sorted(program.parameters) for program in programs] == [
        ["position", "table"],
        ["middle.layers.0.w"],
        ["middle.layers.1.w"],
        ["table"],
    ]
    layout = programs[0].parameters["table"].layout
    assert layout.stages == (0, 3) and layout.ranks == (0, 1, 6, 7)
    assert programs[3].parameters["table"].layout == layout


def test_a_table_that_two_stages_divide_differently_is_refused(divided):
    with pytest.raises(ParameterConflictError, match="stage 0 as .*stage 3 as") as caught:
        divided(lambda: Tied(4, head=((1, 1), (2, 1))), [IDS], 4)
    assert caught.value.parameter == "table"


class Branching(nn.Cell):
    """Three stages, a connection around the second one, and operators that have no stage."""

    def __init__(self):
        super().__init__()
        self.one, self.two = Layer("one", 0, ((2, 1), (1, 1))), Layer("two", 1)
        self.three = Joining("three", 2, ((1, 2), (2, 1)))
        self.bias = parameter("bias", 16)

    def construct(self, x):
        mask = ops.exp(x)  # of no stage: done where it is needed
        first = self.one(x * mask)
        last = self.three(self.two(first) - mask, first)
        return (last + mask) * ops.tanh(self.bias), x


class Joining(Layer):
    def construct(self, x, earlier):
        return self.matmul(x, self.w) + earlier


def sent(programs):
    from workers.spmd.program import Send

    steps = (step for program in programs for step in program.steps)
    return [(step.after.op, step.stages) for step in steps if isinstance(step, Send)]


def test_values_go_straight_to_the_stages_that_need_them(same_as_alone):
    programs = same_as_alone(Branching, [X], 3, devices=6)
    assert sent(programs) == [("ReLU", (1, 2)), ("Sub", (2,)), ("Mul", (0, 1))]
    assert [len(program.parameters) for program in programs] == [1, 1, 2]


class Functional(nn.Cell):
    """No operator is an attribute: MindIR has all of them in the first cell that calls them."""

    def __init__(self, stage):
        super().__init__()
        self.w, self.bias = parameter("w", 16, 16), parameter("bias", 16)
        self.pipeline_stage = stage

    def construct(self, x, mask):
        x = ops.reshape(x, (2, 4, 16)) + ops.cast(self.bias, ms.float32) - ops.expand_dims(mask, 1)
        return ops.reshape(ops.relu(ops.matmul(x / 3, self.w)), (8, 16))


class FunctionalChain(nn.Cell):
    def __init__(self, stages):
        super().__init__()
        self.layers = nn.CellList([Functional(stage) for stage in range(stages)])

    def construct(self, x):
        mask = 1.0 - ops.tanh(x[:4])
        for layer in self.layers:
            x = layer(x, mask[:2])
        return x


@pytest.mark.parametrize("stages", [2, 4])
def test_functions_run_in_the_stage_of_their_data_and_parameters(same_as_alone, stages):
    programs = same_as_alone(lambda: FunctionalChain(stages), [X], stages)
    assert [sorted(program.parameters) for program in programs] == [
        [f"layers.{stage}.bias", f"layers.{stage}.w"] for stage in range(stages)
    ]


def test_a_function_runs_with_its_data_where_another_cell_has_the_same_operator(same_as_alone):
    class Reshaping(Layer):  # MindIR keeps one Reshape, of the name that it has in Dense
        def __init__(self, stage):
            super().__init__("w", stage)
            self.dense = nn.Dense(4, 4)

        def construct(self, x):
            return super().construct(ops.reshape(self.dense(ops.reshape(x, (8, 4, 4))), (8, 16)))

    programs = same_as_alone(lambda: Chain(Reshaping(0), Reshaping(1)), [X], 2)
    assert [len(program.parameters) for program in programs] == [3, 3]


def test_a_loop_runs_in_its_stage(same_as_alone):
    class Loops(Layer):
        def construct(self, x):
            while x.sum() < 100:
                x = self.matmul(x, self.w) * x + 1
            return x

    same_as_alone(lambda: Chain(Layer("a", 0), Loops("b", 1)), [X], 2)


def test_a_network_that_returns_names_keeps_its_stages(divided, lockstep):
    class Named(Chain):
        def construct(self, x):
            return {"first": self.layers[0](x), "last": super().construct(x)}

    def make():
        return Named(Layer("first", 0), Layer("second", 1))

    programs = divided(make, [X], 2)
    names = [name for program in programs for name in program.parameters]
    assert names == ["layers.0.w", "layers.1.w"]
    weights = {p.name: p.asnumpy() for p in make().get_parameters()}
    first = np.maximum(X.asnumpy() @ weights["layers.0.w"], 0)
    for found in lockstep(programs, weights, [X]):
        np.testing.assert_allclose(found[0], first, rtol=1e-5, atol=1e-6)
        wanted = np.maximum(first @ weights["layers.1.w"], 0)
        np.testing.assert_allclose(found[1], wanted, rtol=1e-5, atol=1e-6)


def test_what_a_stage_sends_lies_as_its_operator_left_it(divided):
    from workers.layout_report import report

    programs = divided(
        lambda: Chain(Layer("a", 0, ((1, 1), (1, 4))), Layer("b", 1, ((4, 1), (1, 1)))), [X], 2
    )
    received = [c for c in report(programs)["collectives"] if c["op"] == "Receive"]
    of = {"rank_size": 2, "after": "ReLU"}
    # 8 x 16 float32: the result comes whole; between the stages a ReLU leaves 2 of 8 rows.
    result = {"ranks": [4, 0], "bytes": 512, "before": None}
    rows = {"ranks": [0, 4], "bytes": 128, "before": "MatMul"}
    wanted = [of | result, of | rows]
    assert [{key: c[key] for key in wanted[0]} for c in received] == wanted


class Backwards(nn.Cell):
    def __init__(self):
        super().__init__()
        self.one, self.two = Layer("one", 1), Layer("two", 0)

    def construct(self, x):
        return self.two(self.one(x))


class Reshaped(Layer):
    def __init__(self, *arguments):
        super().__init__(*arguments)
        self.reshape = ops.Reshape()

    def construct(self, x):
        return ops.cast(self.reshape(self.matmul(x, self.w), (8, 4, 4)), ms.float16)


class Summing(Layer):
    def construct(self, x):
        return self.relu(x).sum(axis=1)


class Forked(nn.Cell):
    def __init__(self):
        super().__init__()
        self.one, self.two = Layer("one", 0), Layer("two", 1)

    def construct(self, x):
        if x.sum() > 0:
            return self.two(self.one(x))
        return x


@pytest.mark.parametrize(
    "make, reason",
    [
        (lambda: Chain(Layer("a", 0), Layer("b", 2)), "pipeline_stage 2, but there are 2 stages"),
        (lambda: Chain(Layer("a", 0), Layer("b", 0)), "no operator is in stage 1"),
        (lambda: Chain(Layer("a", None), Layer("b", None)), "no operator is in stage 0"),
        (Backwards, "MatMul .*is in pipeline stage 0, but uses what ReLU .*makes in stage 1"),
        (lambda: Chain(Reshaped("a", 0), Summing("b", 1)), "Reshape op can't be a border"),
        (Forked, r"operators of several pipeline stages, \[0, 1\]"),
    ],
    ids=["too high", "none in the last", "none at all", "backwards", "reshape", "branch"],
)
def test_stages_that_mindspore_would_refuse_are_refused(divided, make, reason):
    with pytest.raises(StrategyError, match=reason):
        divided(make, [X], 2)


def test_a_stage_cannot_send_what_has_the_size_that_the_data_decide(divided):
    with pytest.raises(StrategyError, match="MaskedSelect.*the data decide the size"):
        divided(Chosen, (Tensor(numbers(8, 16)),), 2)
