"""A user's network and data in a folder of their own, and the spec that names them."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from workers.spec import WorkerSpec

NETWORK = '''
import mindspore as ms
from mindspore import Parameter, Tensor, nn, ops

class Scaled(nn.Cell):
    """(x @ weight, x @ weight * scale)"""

    def __init__(self):
        super().__init__()
        self.weight = Parameter(ops.zeros((3, 2), ms.float32), name="weight")
        self.scale = Parameter(ops.zeros((2,), ms.bfloat16), name="scale")
        self.matmul = ops.MatMul().shard(((1, 1), (1, 2)))

    def construct(self, x):
        y = self.matmul(x, self.weight)
        return y, y * self.scale.astype(ms.float32)

def make_network():
    return Scaled()

def make_parallel():
    from mindspore.parallel.auto_parallel import AutoParallel

    network = AutoParallel(Scaled())
    network.dataset_strategy("full_batch")
    return network

def make_nothing():
    return None
'''

DATA = '''
import numpy as np
from mindspore import Tensor

def batches():
    for number in range(3):
        yield Tensor(np.full((4, 3), number, np.float32))

def array():
    return np.ones((4, 3), np.float32)

def empty():
    return []
'''


@pytest.fixture
def make_spec(tmp_path: Path) -> Callable[..., WorkerSpec]:
    """Return a function that makes the spec of a rank.

    Its keywords replace fields of the spec; the network and the data are named by their function.
    """
    (tmp_path / "user_network.py").write_text(NETWORK)
    (tmp_path / "user_data.py").write_text(DATA)

    def make(
        network: str = "make_network", predict_data: str = "batches", **changes: object
    ) -> WorkerSpec:
        values = {
            "rank": 0,
            "rank_size": 1,
            "device_id": 0,
            "server_id": "10.0.0.1",
            "device": "single",
            "network": f"{tmp_path}/user_network.py:{network}",
            "predict_data": f"{tmp_path}/user_data.py:{predict_data}",
        }
        return WorkerSpec(**(values | changes))  # type: ignore[arg-type]

    return make
