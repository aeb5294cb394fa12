"""Two pre-norm transformer blocks, compute-bound on a CPU: what benchmarks/simulated.py runs."""

from __future__ import annotations

import os

import mindspore as ms
import numpy as np
from mindspore import nn, ops

HIDDEN, HEADS, BATCH, SEQUENCE = 1024, 16, 8, 128
BATCHES = int(os.environ.get("BATCHES", "8"))


class Block(nn.Cell):
    """Head-parallel attention, column- then row-parallel MLP, on dp x mp devices."""

    def __init__(self, dp: int, mp: int) -> None:
        super().__init__()
        column, row = ((dp, 1), (mp, 1)), ((dp, mp), (1, mp))
        self.norm1, self.norm2 = nn.LayerNorm((HIDDEN,)), nn.LayerNorm((HIDDEN,))
        self.query, self.key, self.value = (self._dense(HIDDEN, HIDDEN, column) for _ in range(3))
        self.out = self._dense(HIDDEN, HIDDEN, row)
        self.widen = self._dense(HIDDEN, 4 * HIDDEN, column)
        self.narrow = self._dense(4 * HIDDEN, HIDDEN, row)
        heads = (dp, mp, 1, 1)
        self.split_heads = ops.Transpose().shard(((dp, 1, mp, 1),))
        self.merge_heads = ops.Transpose().shard((heads,))
        self.scores = ops.BatchMatMul(transpose_b=True).shard((heads, heads))
        self.mix = ops.BatchMatMul().shard((heads, heads))
        self.scale = ops.Mul().shard((heads, ()))
        self.softmax = ops.Softmax().shard((heads,))
        self.gelu = ops.GeLU().shard(((dp, mp),))
        for norm in (self.norm1, self.norm2):
            norm.layer_norm.shard(((dp, 1), (1,), (1,)))
        self.add1, self.add2 = (ops.Add().shard(((dp, 1), (dp, 1))) for _ in range(2))

    @staticmethod
    def _dense(inputs: int, outputs: int, strategy: tuple[tuple[int, ...], ...]) -> nn.Dense:
        dense = nn.Dense(inputs, outputs, has_bias=False)
        dense.matmul.shard(strategy)
        return dense

    def construct(self, x: ms.Tensor) -> ms.Tensor:
        """Map (rows, hidden) to the same."""
        heads = (BATCH, SEQUENCE, HEADS, HIDDEN // HEADS)
        n = self.norm1(x)
        q, k, v = (
            self.split_heads(ops.reshape(dense(n), heads), (0, 2, 1, 3))
            for dense in (self.query, self.key, self.value)
        )
        a = self.softmax(self.scale(self.scores(q, k), (HIDDEN // HEADS) ** -0.5))
        o = ops.reshape(self.merge_heads(self.mix(a, v), (0, 2, 1, 3)), (-1, HIDDEN))
        x = self.add1(x, self.out(o))
        return self.add2(x, self.narrow(self.gelu(self.widen(self.norm2(x)))))


class Transformer(nn.Cell):
    """Two blocks."""

    def __init__(self, dp: int, mp: int) -> None:
        super().__init__()
        self.blocks = nn.CellList([Block(dp, mp), Block(dp, mp)])

    def construct(self, x: ms.Tensor) -> ms.Tensor:
        """Map (batch * sequence, hidden) to the same."""
        for block in self.blocks:
            x = block(x)
        return x


def make_network() -> nn.Cell:
    """Return the network, divided over as many devices as the context says."""
    devices = ms.get_auto_parallel_context("device_num")
    dp = 2 if devices > 1 else 1
    return Transformer(dp, devices // dp)


def make_batches() -> list[ms.Tensor]:
    """Return the batches, all made beforehand."""
    rng = np.random.RandomState(0)
    shape = (BATCHES, BATCH * SEQUENCE, HIDDEN)
    return [ms.Tensor(batch) for batch in rng.standard_normal(shape).astype(np.float32)]
