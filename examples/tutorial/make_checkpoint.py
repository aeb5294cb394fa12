"""Train the network, then write its slices and expected.npy.

    python -m examples.tutorial.make_checkpoint
"""

from __future__ import annotations

from pathlib import Path

import mindspore as ms
import numpy as np
from mindspore import Tensor, nn

from examples.slices import infer_layouts, weights_of, write_slices
from examples.tutorial.data import make_input
from examples.tutorial.network import Net, make_trained_network

STEPS = 50
DEVICES = 8
FOLDER = Path(__file__).parent


def main() -> None:
    inputs = make_input()
    trained = train(inputs)
    layouts = infer_layouts(make_trained_network, inputs, DEVICES)
    write_slices(FOLDER / "checkpoint", f"parallel-{STEPS}_1.ckpt", weights_of(trained), layouts)
    np.save(FOLDER / "expected.npy", trained(inputs).asnumpy())


def train(inputs: Tensor) -> Net:
    """Fit the network to random targets by gradient descent, on one device."""
    ms.set_context(mode=ms.GRAPH_MODE)
    targets = Tensor(np.random.RandomState(1).randn(128, 16).astype(np.float32))
    net = make_trained_network()
    optimizer = nn.Momentum(net.trainable_params(), learning_rate=1.0, momentum=0.9)
    step = nn.TrainOneStepCell(nn.WithLossCell(net, nn.MSELoss()), optimizer).set_train()
    for number in range(STEPS):
        loss = step(inputs, targets)
        if number % 10 == 9:
            print(f"step {number + 1}: loss {float(loss.asnumpy()):.4f}")
    return net.set_train(False)


if __name__ == "__main__":
    main()
