"""LeNet5 as MindSpore's tutorial writes it, its loss and its metrics."""

from __future__ import annotations

from mindspore import Tensor, nn
from mindspore.train import Accuracy, Metric


class LeNet5(nn.Cell):
    """Images of 32x32 pixels in, one score for each of the ten digits out."""

    def __init__(self) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(1, 6, 5, pad_mode="valid")
        self.conv2 = nn.Conv2d(6, 16, 5, pad_mode="valid")
        self.fc1 = nn.Dense(16 * 5 * 5, 120)
        self.fc2 = nn.Dense(120, 84)
        self.fc3 = nn.Dense(84, 10)
        self.relu = nn.ReLU()
        self.max_pool2d = nn.MaxPool2d(kernel_size=2, stride=2)
        self.flatten = nn.Flatten()

    def construct(self, images: Tensor) -> Tensor:
        x = self.max_pool2d(self.relu(self.conv1(images)))
        x = self.max_pool2d(self.relu(self.conv2(x)))
        x = self.relu(self.fc1(self.flatten(x)))
        return self.fc3(self.relu(self.fc2(x)))


def make_loss() -> nn.Cell:
    return nn.SoftmaxCrossEntropyWithLogits(sparse=True, reduction="mean")


def make_metrics() -> dict[str, Metric]:
    return {"Accuracy": Accuracy()}
