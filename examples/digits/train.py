"""Train the digits network and write its slices: ``make digits-checkpoint``, about a minute.

One process trains; the slices are those of eight devices, two by four, with a parallel
optimizer (``enable_parallel_optimizer=True``), which halves each large weight once more.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import replace
from pathlib import Path

import mindspore as ms
import numpy as np
from mindspore import Tensor, nn

from examples.digits import data, network
from examples.slices import infer_layouts, weights_of, write_slices
from workers.resharding.layout import Layout

SEED = 1
EPOCHS = 25
BATCH = 64
DEVICES = 8
OPTIMIZER_SHARDS_FROM = 64 << 10  # bytes; MindSpore's parallel optimizer leaves smaller ones alone
FOLDER = Path(__file__).with_name("checkpoint")


def main() -> None:
    trained, steps = train()
    print(f"{accuracy(trained):.1%} of {len(data.test_labels())} unseen images are right")
    weights = weights_of(trained)
    batch = next(data.test_images())
    layouts = infer_layouts(network.make_trained_network, batch, DEVICES)
    layouts = with_optimizer_shards(layouts, weights)
    write_slices(FOLDER, f"digits-{EPOCHS}_{steps}.ckpt", weights, layouts)
    print(f"wrote {FOLDER}")


def train() -> tuple[nn.Cell, int]:
    """Return the trained network, and the number of steps of an epoch."""
    ms.set_context(mode=ms.GRAPH_MODE)
    ms.set_seed(SEED)
    images, labels = data.training_set()
    steps = len(images) // BATCH
    net = network.make_trained_network()
    loss = nn.SoftmaxCrossEntropyWithLogits(sparse=True, reduction="mean")
    rates = nn.cosine_decay_lr(1e-5, 2e-3, EPOCHS * steps, steps, EPOCHS)
    optimizer = nn.Adam(net.trainable_params(), rates)
    step = nn.TrainOneStepCell(nn.WithLossCell(net, loss), optimizer).set_train()
    random = np.random.RandomState(SEED)
    for epoch in range(EPOCHS):
        batches = epoch_batches(images, labels, random)
        losses = [float(step(*batch).asnumpy()) for batch in batches]
        print(f"epoch {epoch + 1:2} of {EPOCHS}: loss {np.mean(losses):.4f}", flush=True)
    return net.set_train(False), steps


def epoch_batches(
    images: np.ndarray, labels: np.ndarray, random: np.random.RandomState
) -> Iterator[tuple[Tensor, Tensor]]:
    """Yield the training set in a new order, each batch of images moved by up to one pixel."""
    order = random.permutation(len(images))
    for start in range(0, len(images) - BATCH + 1, BATCH):
        chosen = order[start : start + BATCH]
        yield Tensor(shifted(images[chosen], random)), Tensor(labels[chosen])


def shifted(images: np.ndarray, random: np.random.RandomState) -> np.ndarray:
    """Return each image moved by -1, 0 or 1 pixels both ways; background comes in."""
    padded = np.pad(images, ((0, 0), (0, 0), (1, 1), (1, 1)))
    moves = random.randint(0, 3, (len(images), 2))
    moved = [image[:, y : y + 8, x : x + 8] for image, (y, x) in zip(padded, moves, strict=True)]
    return np.stack(moved)


def accuracy(net: nn.Cell) -> float:
    """Return the share of test images whose highest score is that of the right digit."""
    scores = np.concatenate([net(batch).asnumpy() for batch in data.test_images()])
    return float(np.mean(scores.argmax(axis=1) == data.test_labels()))


def with_optimizer_shards(
    layouts: Mapping[str, Layout], weights: Mapping[str, np.ndarray]
) -> dict[str, Layout]:
    """Divide every large weight once more, over all the devices that hold equal slices of it."""
    return {
        name: replace(layout, optimizer_shard=-1)
        if weights[name].nbytes >= OPTIMIZER_SHARDS_FROM
        else layout
        for name, layout in layouts.items()
    }


if __name__ == "__main__":
    main()
