"""What a program's activations take of a rank's memory."""

from __future__ import annotations

import numpy as np


def test_a_rank_holds_what_it_still_needs(capture_cell):
    from mindspore import Tensor, nn, ops

    from workers.spmd.memory import activation_bytes
    from workers.spmd.partition import partition

    class Net(nn.Cell):
        def __init__(self):
            super().__init__()
            self.relu = ops.ReLU().shard(((2, 1),))

        def construct(self, x):
            return self.relu(x)

    program = partition(capture_cell(Net, [Tensor(np.ones((8, 4), np.float32))], 2), 2)
    # x: 8 x 4 float32 = 128 bytes, whole; a rank's rows of it: 64
    #   slice x: 128 + 64, then x is not needed any more
    #   ReLU: 64 + 64, then the rows are not needed
    #   gather: 64 + 128
    assert [type(step).__name__ for step in program.steps] == [
        "Redistribute",
        "Compute",
        "Redistribute",
    ]
    assert activation_bytes(program) == 192
