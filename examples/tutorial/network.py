"""The network of MindSpore's tutorial on distributed inference: a MatMul with Neg behind it."""

from __future__ import annotations

import mindspore as ms
from mindspore import Parameter, Tensor, nn, ops
from mindspore.common.initializer import initializer

Strategy = tuple[tuple[int, ...], ...]  # for each input of an operator, the parts of each dim


class Net(nn.Cell):
    """-(x @ weight), x of shape (128, 96)."""

    def __init__(self, strategy: Strategy) -> None:
        super().__init__()
        weight = initializer("zeros", (96, 16), ms.float32)
        self.weight = Parameter(weight, name="matmul_weight")
        self.matmul = ops.MatMul().shard(strategy)
        self.neg = ops.Neg()

    def construct(self, x: Tensor) -> Tensor:
        return self.neg(self.matmul(x, self.weight))


def make_trained_network() -> Net:
    """Return the network as it was trained: rows of x in 2 parts, columns of the weight in 4."""
    return Net(strategy=((2, 1), (1, 4)))


def make_network() -> Net:
    """Return the network to predict with: rows of the weight in 2 parts, columns in 4."""
    return Net(strategy=((1, 2), (2, 4)))
