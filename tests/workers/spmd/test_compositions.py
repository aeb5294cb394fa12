"""Operators that only Ascend has give what NumPy gives, on whole tensors and on slices."""

from __future__ import annotations

import numpy as np
import pytest


def numbers(*shape, seed=0):
    return np.random.RandomState(seed).randn(*shape).astype(np.float32)


def softmax(x):
    weights = np.exp(x - x.max(-1, keepdims=True))
    return weights / weights.sum(-1, keepdims=True)


def attention(q, k, v, scale, mask=None):
    scores = q @ k.swapaxes(-1, -2) * scale
    if mask is not None:
        scores = np.where(mask, -np.inf, scores)
    return softmax(scores) @ v


@pytest.fixture
def run(capture_cell, lockstep):
    """Run an operator on slices of 8 ranks; return what rank 0 gets."""

    def predict(make, arrays, strategy=None, dtype=None):
        from mindspore import Tensor, nn, ops

        from workers.spmd.partition import partition

        class Net(nn.Cell):
            def __init__(self):
                super().__init__()
                self.call = make(ops, strategy)

            def construct(self, *tensors):
                return self.call(*tensors)

        halved = [dtype if dtype and x.dtype == np.float32 else None for x in arrays]
        tensors = [Tensor(x).astype(d) if d else Tensor(x) for x, d in zip(arrays, halved)]
        return lockstep(partition(capture_cell(Net, tensors), 8), {}, tensors)[0]

    return predict


def operator(name, constants=(), **attributes):
    """Return what makes a cell of one operator out of mindspore.ops and a strategy."""

    def make(ops, strategy):
        from mindspore import nn

        class Call(nn.Cell):
            def __init__(self):
                super().__init__()
                self.operator = getattr(ops.auto_generate, name)(**attributes)
                if strategy:
                    self.operator.shard(strategy)

            def construct(self, *tensors):
                return self.operator(*tensors, *constants)

        return Call()

    return make


@pytest.mark.parametrize("strategy", [None, ((2, 4, 1), (1,)), ((2, 1, 4), (4,))])
def test_rms_norm(run, strategy):
    x, gamma = numbers(8, 4, 16), numbers(16, seed=1)
    y, rstd = run(operator("RmsNorm"), [x, gamma], strategy)
    wanted = 1 / np.sqrt((x**2).mean(-1, keepdims=True) + 1e-6)
    np.testing.assert_allclose(rstd, wanted, rtol=1e-5)
    np.testing.assert_allclose(y, x * wanted * gamma, rtol=1e-5, atol=1e-6)


def test_swiglu(run):
    x = numbers(8, 4, 16)
    (y,) = run(operator("Swiglu", (-1,)), [x], ((2, 4, 1),))
    gate, up = np.split(x, 2, -1)
    np.testing.assert_allclose(y, gate / (1 + np.exp(-gate)) * up, rtol=1e-5, atol=1e-6)


def test_layer_norm_ext(run):
    x, weight, bias = numbers(8, 16), numbers(16, seed=1), numbers(16, seed=2)

    def make(ops, strategy):
        from mindspore import mint, nn

        class Call(nn.Cell):
            def construct(self, x, weight, bias):
                return mint.nn.functional.layer_norm(x, (16,), weight, bias)

        return Call()

    (y,) = run(make, [x, weight, bias])
    centred = x - x.mean(-1, keepdims=True)
    wanted = centred / np.sqrt((centred**2).mean(-1, keepdims=True) + 1e-5) * weight + bias
    np.testing.assert_allclose(y, wanted, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("mode", [0, 1])
def test_rotary_position_embedding(run, mode):
    x, angle = numbers(2, 4, 8, 16), numbers(1, 1, 8, 16, seed=1)
    (y,) = run(operator("RotaryPositionEmbedding", (mode,)), [x, np.cos(angle), np.sin(angle)])
    if mode:
        turned = np.stack((-x[..., 1::2], x[..., ::2]), -1).reshape(x.shape)
    else:
        turned = np.concatenate((-x[..., 8:], x[..., :8]), -1)
    np.testing.assert_allclose(y, x * np.cos(angle) + turned * np.sin(angle), rtol=1e-4, atol=1e-5)


def test_rotary_embedding_of_queries_and_keys_by_position(run):
    query, key, angle = numbers(2, 4, 32), numbers(2, 4, 16, seed=1), numbers(10, 16, seed=2)
    places = np.array([[3, 4, 5, 6], [0, 1, 2, 3]], np.int32)
    from mindspore import float16

    arrays = [query, key, np.cos(angle), np.sin(angle), places]
    found = run(operator("ApplyRotaryPosEmb"), arrays, None, float16)
    for x, y in zip((query, key), found, strict=True):
        heads, turns = x.reshape(2, 4, -1, 16), angle[places][:, :, None]
        turned = np.concatenate((-heads[..., 8:], heads[..., :8]), -1)
        wanted = heads * np.cos(turns) + turned * np.sin(turns)
        np.testing.assert_allclose(y, wanted.reshape(x.shape), rtol=1e-2, atol=1e-2)


def flash(layout, **more):
    given = dict(head_num=8, scale_value=0.25, input_layout=layout) | more

    def make(ops, strategy):
        from mindspore import nn

        class Call(nn.Cell):
            def __init__(self):
                super().__init__()
                self.operator = ops.operations.nn_ops.FlashAttentionScore(**given)
                if strategy:
                    self.operator.shard(strategy)

            def construct(self, query, key, value, mask=None):
                return self.operator(query, key, value, None, None, None, mask)

        return Call()

    return make


@pytest.mark.parametrize(
    "strategy",
    [None, ((2, 4, 1, 1),) * 3, ((2, 2, 2, 1), (2, 2, 1, 1), (2, 2, 1, 1))],
)
def test_flash_attention_and_its_statistics(run, strategy):
    q, k, v = (numbers(2, 8, 6, 16, seed=i) for i in range(3))
    largest, total, _, y = run(flash("BNSD"), [q, k, v], strategy)
    scores = q @ k.swapaxes(-1, -2) * 0.25
    top = scores.max(-1, keepdims=True)
    np.testing.assert_allclose(y, attention(q, k, v, 0.25), rtol=1e-4, atol=1e-5)
    np.testing.assert_allclose(largest, np.repeat(top, 8, -1), rtol=1e-4, atol=1e-5)
    wanted = np.exp(scores - top).sum(-1, keepdims=True)
    np.testing.assert_allclose(total[..., :1], wanted, rtol=1e-4)


def test_flash_attention_on_joined_heads_with_a_mask(run):
    heads = [numbers(2, 8, 6, 16, seed=i) for i in range(3)]
    joined = [x.transpose(0, 2, 1, 3).reshape(2, 6, 128) for x in heads]
    mask = np.triu(np.ones((2, 1, 6, 6), np.uint8), 1)
    strategy = ((2, 1, 4),) * 3 + ((2, 1, 1, 1),)
    *_, y = run(flash("BSH"), [*joined, mask], strategy)
    wanted = attention(*heads, 0.25, mask.astype(bool)).transpose(0, 2, 1, 3).reshape(2, 6, 128)
    np.testing.assert_allclose(y, wanted, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("mode, behind", [(2, 0), (3, 2)])
def test_causal_attention_without_a_whole_mask(run, mode, behind):
    q, k, v = numbers(2, 8, 4, 16), *(numbers(2, 8, 6, 16, seed=i) for i in (1, 2))
    template = np.triu(np.ones((2048, 2048), np.uint8), 1)
    *_, y = run(flash("BNSD", sparse_mode=mode), [q, k, v, template])
    mask = np.triu(np.ones((4, 6), bool), 1 + behind)  # mode 3: the last query sees every key
    np.testing.assert_allclose(y, attention(q, k, v, 0.25, mask), rtol=1e-4, atol=1e-5)


def test_query_heads_that_share_a_key_head(run):
    q, k, v = numbers(2, 8, 4, 16), *(numbers(2, 2, 4, 16, seed=i) for i in (1, 2))
    *_, y = run(flash("BNSD"), [q, k, v], ((2, 2, 1, 1),) * 3)
    shared = [np.repeat(x, 4, 1) for x in (k, v)]
    np.testing.assert_allclose(y, attention(q, *shared, 0.25), rtol=1e-4, atol=1e-5)


def test_attention_over_a_prompt(run):
    from mindspore import float16

    q, k, v = (numbers(2, 8, 4, 16, seed=i) for i in range(3))
    make = operator(
        "PromptFlashAttention",
        num_heads=8,
        scale_value=0.25,
        input_layout="BNSD",
        next_tokens=2147483647,
    )
    (y,) = run(make, [q, k, v], ((2, 4, 1, 1),) * 3, float16)
    np.testing.assert_allclose(y, attention(q, k, v, 0.25), rtol=1e-2, atol=1e-2)


@pytest.mark.parametrize("dtype", ["float16", "bfloat16", "int32", "int64"])
def test_element_types_that_networks_use(run, dtype):
    import mindspore

    x = (numbers(8, 16) * 4).round()  # small whole numbers: exact in every type

    def make(ops, strategy):
        from mindspore import nn

        class Call(nn.Cell):
            def construct(self, x):
                total = ops.add(x, x).transpose(1, 0).reshape(4, 32)
                return ops.cat((total, total), 1), ops.maximum(total, -total)

        return Call()

    joined, largest = run(make, [x], None, getattr(mindspore, dtype))
    wanted = (x + x).T.reshape(4, 32)
    np.testing.assert_array_equal(joined.astype(np.float32), np.concatenate((wanted, wanted), 1))
    np.testing.assert_array_equal(largest.astype(np.float32), np.abs(wanted))


def test_sums_and_products_are_made_in_the_type_that_is_asked_for(run):
    from mindspore import float64, int64, mint
    from mindspore import ops as functions

    def make(ops, strategy):
        def both(x):
            return mint.cumsum(x, 1, dtype=int64), functions.prod(x, 1, dtype=float64)

        return both

    x = np.full((8, 16), 100, np.int8)
    sums, products = run(make, [x])
    np.testing.assert_array_equal(sums, np.cumsum(x, 1, dtype=np.int64))
    np.testing.assert_allclose(products, np.prod(x, 1, dtype=np.float64))
