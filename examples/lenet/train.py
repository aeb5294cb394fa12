"""Train LeNet5 and write lenet.ckpt: ``python -m examples.lenet.train``, about half a minute."""

from __future__ import annotations

from pathlib import Path

import mindspore as ms
from mindspore import nn
from mindspore.train import Model

from examples.lenet.data import create_dataset
from examples.lenet.network import LeNet5, make_loss, make_metrics

SEED = 1
EPOCHS = 20


def main() -> None:
    ms.set_context(mode=ms.GRAPH_MODE, device_target="CPU")
    ms.set_seed(SEED)
    network = LeNet5()
    optimizer = nn.Adam(network.trainable_params(), learning_rate=1e-3)
    model = Model(network, make_loss(), optimizer, make_metrics())
    model.train(EPOCHS, create_dataset(part="train"), dataset_sink_mode=False)
    print(model.eval(create_dataset(), dataset_sink_mode=False))
    ms.save_checkpoint(network, str(Path(__file__).with_name("lenet.ckpt")))


if __name__ == "__main__":
    main()
