"""Reading captured graphs: plumbing disappears, cells that are inlined late do not matter."""

from __future__ import annotations

import numpy as np
import pytest

from workers.spmd.errors import CaptureError


def tensor(*shape, seed=1):
    import mindspore

    return mindspore.Tensor(np.random.RandomState(seed).randn(*shape).astype(np.float32))


def test_loads_and_side_effects_leave_only_operators(capture_case):
    graph, _ = capture_case("lenet_fc", 8)
    assert [n.op for n in graph.nodes][:4] == ["Conv2D", "ReLU", "MaxPool", "Conv2D"]
    assert {n.op for n in graph.nodes} == {
        *("Conv2D", "ReLU", "MaxPool", "Flatten", "MatMul", "BiasAdd")
    }
    assert graph.parameters["fc1.weight"].shape == (120, 400)
    (fc1,) = [n for n in graph.nodes if n.scope == "fc1-Dense/MatMul-op0"]
    assert fc1.attributes["in_strategy"] == ((2, 1), (4, 1))
    assert fc1.argument(3) is True  # transpose_b


def test_no_parameter_is_allocated_by_a_capture():
    import resource

    from mindspore import Parameter, nn, ops
    from mindspore.common.initializer import initializer

    from workers.spmd.capture import capture, set_parallel_context

    class Huge(nn.Cell):
        def __init__(self):
            super().__init__()
            self.weight = Parameter(initializer("normal", (32768, 65536)), name="weight")  # 8 GiB
            self.matmul = ops.MatMul().shard(((1, 1), (1, 8)))

        def construct(self, x):
            return self.matmul(x, self.weight)

    set_parallel_context(0, 8)
    before_kb = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    graph = capture(Huge(), [tensor(2, 32768)])
    grown_kb = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before_kb
    assert graph.parameters["weight"].shape == (32768, 65536)
    assert grown_kb < 200 * 1024


def test_cells_that_are_inlined_late_are_flattened(capture_cell, lockstep):
    from mindspore import lazy_inline, nn

    from workers.spmd.partition import partition

    class Block(nn.Cell):
        @lazy_inline
        def __init__(self):
            super().__init__()
            self.dense = nn.Dense(16, 16)
            self.dense.matmul.shard(((2, 1), (4, 1)))

        def construct(self, x):
            return self.dense(x) + x

    class Net(nn.Cell):
        def __init__(self):
            super().__init__()
            self.blocks = nn.CellList([Block() for _ in range(3)])

        def construct(self, x):
            for block in self.blocks:
                x = block(x)
            return x

    x = tensor(8, 16)
    graph = capture_cell(Net, [x])
    assert [n.op for n in graph.nodes] == ["MatMul", "BiasAdd", "Add"] * 3
    program = partition(graph, 8)
    weights = {
        name: np.random.RandomState(i).randn(*placed.value.shape).astype(np.float32)
        for i, (name, placed) in enumerate(program.parameters.items())
    }
    wanted = x.asnumpy()
    for block in range(3):
        weight, bias = (weights[f"blocks.{block}.dense.{x}"] for x in ("weight", "bias"))
        wanted = wanted @ weight.T + bias + wanted
    for (answer,) in lockstep(program, weights, [x]):
        np.testing.assert_allclose(answer, wanted, rtol=1e-5, atol=1e-4)


def test_several_outputs_keep_their_order(capture_cell, lockstep):
    from mindspore import nn, ops

    from workers.spmd.partition import partition

    class Net(nn.Cell):
        def construct(self, x):
            return ops.ReLU()(x), (x + 1, x * 2)

    x = tensor(8, 16)
    program = partition(capture_cell(Net, [x]), 4)
    for first, second, third in lockstep(program, {}, [x]):
        np.testing.assert_array_equal(first, np.maximum(x.asnumpy(), 0))
        np.testing.assert_array_equal(second, x.asnumpy() + 1)
        np.testing.assert_array_equal(third, x.asnumpy() * 2)


def test_an_error_in_the_users_construct_is_told(capture_cell):
    from mindspore import nn, ops

    class Net(nn.Cell):
        def construct(self, x):
            return ops.MatMul()(x, x)

    with pytest.raises(CaptureError, match="cannot compile the network.*MatMul"):
        capture_cell(Net, [tensor(4, 3)])


def test_reshapes_that_undo_each_other_do_not_hide_the_user_of_a_weight(capture_cell):
    from mindspore import Parameter, Tensor, nn, ops

    from workers.spmd.partition import partition

    class Net(nn.Cell):
        def __init__(self, back):
            super().__init__()
            self.w = Parameter(Tensor(np.zeros((16, 16), np.float32)), name="w")
            self.back = back
            self.matmul = ops.MatMul().shard(((1, 1), (1, 8)))

        def construct(self, x):
            w = ops.reshape(ops.reshape(self.w, (256,)), self.back)
            return self.matmul(x, w)

    undone = partition(capture_cell(lambda: Net((16, 16)), [tensor(8, 16)]), 8)
    assert undone.parameters["w"].layout.axes == ((), (0,))
    # A reshape that stays decides nothing itself: all devices share the rows of the weight.
    kept = partition(capture_cell(lambda: Net((32, 8)), [tensor(8, 32)]), 8)
    assert kept.parameters["w"].layout.axes == ((0,), ())


def test_a_network_may_ask_for_the_number_of_ranks(capture_cell):
    from mindspore import communication, nn, ops

    class Net(nn.Cell):
        def __init__(self):
            super().__init__()
            get_group_size = communication.get_group_size
            self.matmul = ops.MatMul().shard(((get_group_size(), 1), (1, 1)))

        def construct(self, x):
            return self.matmul(x, x)

    (node,) = capture_cell(Net, [tensor(16, 16)]).nodes
    assert node.attributes["in_strategy"] == ((8, 1), (1, 1))


def test_strategies_for_whole_cells_and_functions_change_no_answer(capture_cell, lockstep):
    from mindspore import nn
    from mindspore.parallel import shard

    from workers.spmd.partition import partition

    def double(x):
        return x * 2

    class Net(nn.Cell):
        def __init__(self):
            super().__init__()
            self.dense = nn.Dense(16, 16)
            self.dense.shard(((2, 1),))
            self.sharded = shard(self.dense, ((1, 2),))
            self.double = shard(double, ((4, 1),))

        def construct(self, x):
            return self.double(self.dense(x)) - self.sharded(x)

    x = tensor(16, 16)
    with pytest.warns(UserWarning, match="shard for Dense is not used.*the answer is the same"):
        program = partition(capture_cell(Net, [x]), 8)
    weights = {"dense.weight": np.eye(16, dtype=np.float32), "dense.bias": np.ones(16, np.float32)}
    for (answer,) in lockstep(program, weights, [x]):
        np.testing.assert_allclose(answer, x.asnumpy() + 1, rtol=1e-5)


def test_inputs_may_be_containers_and_plain_values(capture_cell, lockstep):
    from mindspore import nn

    from workers.nested import tensors_in
    from workers.spmd.partition import partition

    class Net(nn.Cell):
        def construct(self, pair, by_name, doubled=False, scale=None):
            x = pair[0] + pair[1][0] * by_name["b"] - by_name["a"]
            if doubled:
                x = x * 2
            return x if scale is None else x * scale

    a, b, c, d = (tensor(8, 16, seed=seed) for seed in range(4))
    inputs = ([a, (b,)], {"b": c, "a": d}, True, 0.5)
    program = partition(capture_cell(Net, inputs), 4)
    a, b, c, d = (x.asnumpy() for x in (a, b, c, d))
    for (answer,) in lockstep(program, {}, tensors_in(inputs)):
        np.testing.assert_allclose(answer, a + b * c - d, rtol=1e-5)


def test_a_network_may_return_names_and_nothing(capture_cell, lockstep):
    from mindspore import nn

    from workers.spmd.partition import partition

    class Net(nn.Cell):
        def construct(self, x):
            return {"logits": x * 2, "loss": None, "hidden": (x, [x + 1])}

    x = tensor(8, 16)
    program = partition(capture_cell(Net, [x]), 4)
    for logits, first, second in lockstep(program, {}, [x]):
        np.testing.assert_array_equal(logits, x.asnumpy() * 2)
        np.testing.assert_array_equal(first, x.asnumpy())
        np.testing.assert_array_equal(second, x.asnumpy() + 1)


def test_dropout_that_drops_nothing_leaves_no_parameter_to_load(capture_cell):
    from mindspore import mint, nn

    from workers.spmd.partition import partition

    class Net(nn.Cell):
        def __init__(self):
            super().__init__()
            self.dense = nn.Dense(16, 8)

        def construct(self, x):
            return mint.nn.functional.dropout(self.dense(x), 0.5, self.training)

    program = partition(capture_cell(Net, [tensor(8, 16)]), 8)
    assert set(program.parameters) == {"dense.weight", "dense.bias"}


def test_a_parameter_that_no_cell_has_is_refused(capture_cell):
    from mindspore import Parameter, mint, nn

    class Listed(nn.Cell):
        def __init__(self):
            super().__init__()
            self.weights = [Parameter(tensor(16), name="first")]

        def construct(self, x):
            return x + self.weights[0]

    class Random(nn.Cell):
        def construct(self, x):
            return mint.nn.functional.dropout(x, 0.5, True)

    for make, user in ((Listed, "Add .* uses the parameter first"), (Random, "Generator")):
        with pytest.raises(CaptureError, match=user):
            capture_cell(make, [tensor(8, 16)])


def test_a_collective_in_the_network_itself_is_refused(capture_cell):
    from mindspore import nn, ops

    class Net(nn.Cell):
        def __init__(self):
            super().__init__()
            self.operator = ops.Primitive("AllReduce").add_prim_attr("group", "hccl_world_group")

        def construct(self, x):
            return self.operator(x)

    with pytest.raises(CaptureError, match="AllReduce .* is a collective"):
        capture_cell(Net, [tensor(8, 16)])
