"""Operators of mindspore.mint that a CPU lacks give what NumPy, or MindSpore's ops, give."""

from __future__ import annotations

import numpy as np
import pytest

RANDOM = np.random.RandomState(0)
X = RANDOM.randn(8, 16).astype(np.float32)
Y = RANDOM.randn(8, 16).astype(np.float32)
TIES = RANDOM.randint(0, 4, (8, 16)).astype(np.float32)
WITHIN = RANDOM.rand(8, 16).astype(np.float32) * 0.9
NUMBERS = RANDOM.randint(0, 8, (8, 16)).astype(np.int32)
ROWS = np.array([5, 0, 5], np.int64)
IMAGE = RANDOM.randn(8, 4, 9, 9).astype(np.float32)
KERNEL = RANDOM.randn(6, 4, 3, 3).astype(np.float32)


@pytest.fixture
def on_ranks_of(capture_cell, lockstep):
    """Return what eight ranks make of a cell's construct, on some tensors."""

    def predict(construct, *arrays, devices=8):
        from mindspore import Tensor, nn

        from workers.spmd.partition import partition

        class Net(nn.Cell):
            pass

        Net.construct = construct
        tensors = [Tensor(x) for x in arrays]
        program = partition(capture_cell(Net, tensors, devices), devices)
        return lockstep(program, {}, tensors)[0]

    return predict


def agree(found, wanted):
    assert len(found) == len(wanted)
    for number, (x, y) in enumerate(zip(found, wanted)):
        np.testing.assert_allclose(x, y, rtol=2e-5, atol=2e-6, err_msg=f"result {number}")


def test_functions_of_one_element(on_ranks_of):
    from mindspore import mint

    def construct(self, x, within):
        f = mint.nn.functional
        return (
            *(f.leaky_relu(x, 0.3), f.elu(x, 0.5), f.mish(x), f.selu(x), f.relu6(x)),
            *(f.logsigmoid(x), f.threshold(x, 0.1, 0.2), mint.frac(x), mint.exp2(x)),
            *(mint.log2(within), mint.log10(within), mint.asin(within), mint.acos(within)),
            *(mint.atan(x), mint.asinh(x), mint.acosh(within + 1), mint.full_like(x, 2.5)),
            mint.isneginf(mint.log(x * 0)),
        )

    softplus = np.log1p(np.exp(X))
    alpha, scale = 1.6732632423543772, 1.0507009873554805
    wanted = (
        *(np.where(X > 0, X, 0.3 * X), np.where(X > 0, X, 0.5 * np.expm1(X))),
        *(X * np.tanh(softplus), scale * np.where(X > 0, X, alpha * np.expm1(X))),
        *(X.clip(0, 6), -np.log1p(np.exp(-X)), np.where(X > 0.1, X, 0.2), X - np.trunc(X)),
        *(np.exp2(X), np.log2(WITHIN), np.log10(WITHIN), np.arcsin(WITHIN), np.arccos(WITHIN)),
        *(np.arctan(X), np.arcsinh(X), np.arccosh(WITHIN + 1), np.full_like(X, 2.5)),
        np.ones(X.shape, bool),
    )
    agree(on_ranks_of(construct, X, WITHIN), wanted)


def test_functions_of_two_elements(on_ranks_of):
    from mindspore import mint

    def construct(self, x, y, n):
        return (
            *(mint.atan2(x, y), mint.logaddexp(x, y), mint.fmod(x, y), mint.addcdiv(x, x, y)),
            *(mint.addcmul(x, x, y, value=0.5), mint.bitwise_or(n, n + 1)),
            mint.bitwise_xor(n, n + 1),
        )

    wanted = (
        *(np.arctan2(X, Y), np.logaddexp(X, Y), np.fmod(X, Y), X + X / Y, X + 0.5 * X * Y),
        *(NUMBERS | NUMBERS + 1, NUMBERS ^ NUMBERS + 1),
    )
    agree(on_ranks_of(construct, X, Y, NUMBERS), wanted)


def test_products(on_ranks_of):
    from mindspore import mint

    def construct(self, x, y):
        z, row = mint.t(y), y[0]
        return (
            *(mint.mm(x, z), mint.mv(x, row), mint.dot(x[1], row), mint.outer(x[1], row)),
            *(mint.addmm(x[:, :8], x, z, beta=2.0, alpha=0.5), mint.addmv(x[:, 0], x, row)),
            mint.addbmm(x[:2, :2], x.reshape(16, 2, 4), y.reshape(16, 4, 2), alpha=0.5),
        )

    product = X @ Y.T
    batches = X.reshape(16, 2, 4) @ Y.reshape(16, 4, 2)
    wanted = (
        *(product, X @ Y[0], X[1] @ Y[0], np.outer(X[1], Y[0]), 2 * X[:, :8] + 0.5 * product),
        *(X[:, 0] + X @ Y[0], X[:2, :2] + 0.5 * batches.sum(0)),
    )
    agree(on_ranks_of(construct, X, Y), wanted)


def test_statistics(on_ranks_of):
    from mindspore import mint

    def construct(self, x):
        return (
            *(mint.var(x, 1), mint.std(x, 0, correction=0, keepdim=True), *mint.var_mean(x, 1)),
            *(*mint.std_mean(x, 0), mint.norm(x, 2, 1, True), mint.linalg.vector_norm(x)),
            *(mint.linalg.vector_norm(x, float("inf"), 1), mint.logsumexp(x, 1, True)),
            *(mint.argmin(x, 1), *mint.median(x, 1), mint.count_nonzero(x), mint.trace(x)),
            *mint.cummin(x, 1),
        )

    lower = np.argsort(X, 1)[:, 7]
    least = np.minimum.accumulate(X, 1)
    wanted = (
        *(X.var(1, ddof=1), X.std(0, keepdims=True), X.var(1, ddof=1), X.mean(1)),
        *(X.std(0, ddof=1), X.mean(0), np.sqrt((X**2).sum(1, keepdims=True))),
        *(np.sqrt((X**2).sum()), np.abs(X).max(1), np.log(np.exp(X).sum(1, keepdims=True))),
        *(X.argmin(1), X[np.arange(8), lower], lower, X.size, np.trace(X), least),
        np.array([[row.tolist().index(x) for x in lows] for row, lows in zip(X, least)]),
    )
    agree(on_ranks_of(construct, X), wanted)


def test_sorting_keeps_the_order_of_equal_elements(on_ranks_of):
    from mindspore import mint

    def construct(self, x):
        return (
            *mint.sort(x, dim=1, stable=True),
            *mint.sort(x, dim=0, descending=True, stable=True),
            mint.argsort(x, dim=1, descending=True, stable=True),
        )

    up, down = np.argsort(TIES, 1, kind="stable"), np.argsort(-TIES, 0, kind="stable")
    wanted = (
        *(np.sort(TIES, 1), up, -np.sort(-TIES, 0), down),
        np.argsort(-TIES, 1, kind="stable"),
    )
    agree(on_ranks_of(construct, TIES), wanted)


def test_elements_that_are_moved_or_picked(on_ranks_of):
    from mindspore import mint

    def construct(self, x, y, rows, places):
        return (
            *(mint.roll(x, 2, 1), mint.roll(x, (1, 3), (0, 1)), mint.roll(x, 5), mint.diff(x)),
            *(mint.index_select(x, 0, rows), mint.take(x, rows), x.repeat((2, 3))),
            mint.index_add(x, 0, rows, y[:3], alpha=2),
            mint.scatter_add(x, 1, places, y),
            mint.linspace(0, 1, 16) + x,
        )

    added, scattered = X.copy(), X.copy()
    np.add.at(added, ROWS, 2 * Y[:3])
    np.add.at(scattered, (np.arange(8)[:, None], NUMBERS), Y)
    wanted = (
        *(np.roll(X, 2, 1), np.roll(X, (1, 3), (0, 1)), np.roll(X, 5), np.diff(X), X[ROWS]),
        *(X.ravel()[ROWS], np.tile(X, (2, 3)), added, scattered, np.linspace(0, 1, 16) + X),
    )
    agree(on_ranks_of(construct, X, Y, ROWS, NUMBERS.astype(np.int64)), wanted)


def test_layers_of_images(on_ranks_of):
    from mindspore import Tensor, context, mint, ops

    def construct(self, x, kernel, mean, variance):
        f = mint.nn.functional
        return (
            f.conv2d(x, kernel, None, 2, (1, 0)),
            f.avg_pool2d(x, 3, 2, 1),
            f.max_pool2d(x, 3, 2, 1),
            f.adaptive_avg_pool2d(x, (3, 3)),
            f.interpolate(x, size=(18, 18), mode="bilinear"),
            f.batch_norm(x, mean, variance, mean, variance, eps=1e-3),
        )

    mean, variance = X[0, :4], WITHIN[0, :4] + 0.5
    found = on_ranks_of(construct, IMAGE, KERNEL, mean, variance)
    context.set_context(mode=context.PYNATIVE_MODE)
    x, kernel = Tensor(IMAGE), Tensor(KERNEL)
    padded = Tensor(np.pad(IMAGE, ((0, 0), (0, 0), (1, 1), (0, 0))))
    channels = [array.reshape(4, 1, 1) for array in (mean, variance)]
    normal = (IMAGE - channels[0]) / np.sqrt(channels[1] + 1e-3)
    wanted = (
        ops.conv2d(padded, kernel, None, 2),
        ops.avg_pool2d(x, 3, 2, 1),
        ops.max_pool2d(x, 3, 2, 1),
        ops.adaptive_avg_pool2d(x, (3, 3)),
        ops.interpolate(x, size=(18, 18), mode="bilinear"),
        Tensor(normal * channels[0] + channels[1]),
    )
    agree(found, [y.asnumpy() for y in wanted])
