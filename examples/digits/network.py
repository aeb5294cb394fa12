"""The network: two convolutions, and three dense layers of which two are split over devices."""

from __future__ import annotations

import mindspore as ms
from mindspore import Tensor, nn, ops


class Digits(nn.Cell):
    """Images of 8x8 pixels in, one score for each of the ten digits out.

    The large dense layers carry strategies: the devices of one model-parallel group hold some
    columns of ``fc1`` and the matching rows of ``fc2`` each, so that nothing moves between the
    two. All other operators carry none: MindSpore splits their batch over all devices.
    """

    def __init__(self, data_parallel: int, model_parallel: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(1, 16, 3, pad_mode="same", has_bias=True)
        self.conv2 = nn.Conv2d(16, 32, 3, pad_mode="same", has_bias=True)
        self.relu = ops.ReLU()
        self.pool = nn.MaxPool2d(kernel_size=2, stride=2)
        self.flatten = nn.Flatten()
        self.fc1 = nn.Dense(32 * 4 * 4, 256)
        self.relu1 = ops.ReLU()
        self.fc2 = nn.Dense(256, 128)
        self.relu2 = ops.ReLU()
        self.fc3 = nn.Dense(128, 10)

        dp, mp = data_parallel, model_parallel
        self.fc1.matmul.shard(((dp, 1), (mp, 1)))  # weights are (out, in): split the outputs
        self.fc1.bias_add.shard(((dp, mp), (mp,)))
        self.relu1.shard(((dp, mp),))
        self.fc2.matmul.shard(((dp, mp), (1, mp)))  # split the inputs; ends in an all-reduce
        self.fc2.bias_add.shard(((dp, 1), (1,)))
        self.relu2.shard(((dp, 1),))

    def construct(self, images: Tensor) -> Tensor:
        x = self.relu(self.conv1(images))
        x = self.pool(self.relu(self.conv2(x)))
        x = self.relu1(self.fc1(self.flatten(x)))
        x = self.relu2(self.fc2(x))
        return self.fc3(x)


def make_trained_network() -> Digits:
    """Return the network as it was trained: on eight devices, two by four."""
    return Digits(data_parallel=2, model_parallel=4)


def make_network() -> Digits:
    """Return the network to predict with: every device holds as little of it as possible."""
    return Digits(data_parallel=1, model_parallel=ms.get_auto_parallel_context("device_num"))
