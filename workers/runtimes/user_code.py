"""Call the two factories that the user named, and check that a network can be run on the result."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import chain
from typing import Any

from mindspore import nn

from workers.data import batches_of
from workers.entry_point import load_entry_point
from workers.errors import InputError
from workers.spec import WorkerSpec
from workers.tensors import to_tensor


class NetworkError(InputError):
    """The network factory returned something that is no network."""

    def __init__(self, source: str, found: str) -> None:
        super().__init__(source, found)
        self.source, self.found = source, found

    def __str__(self) -> str:
        return (
            f"{self.source}: it returned something of type {self.found};"
            " name a function that returns a mindspore.nn.Cell, or a Cell class"
        )


def make_network(spec: WorkerSpec) -> nn.Cell:
    """Build the user's network, ready to predict. Call it under the context it shall run in."""
    network = load_entry_point(spec.network, spec.search_path)()
    if not isinstance(network, nn.Cell):
        raise NetworkError(spec.network, type(network).__name__)
    network.set_train(False)
    return network


def make_batches(spec: WorkerSpec) -> tuple[tuple[Any, ...], Iterator[tuple[Any, ...]]]:
    """Return the first batch, to compile with, and an iterator over all of them, it included.

    The user's data is iterated once, and one batch is read ahead: it may be a generator.
    """
    data = load_entry_point(spec.predict_data, spec.search_path)()
    batches = map(_tensors, batches_of(data, spec.predict_data))
    first = next(batches)
    return first, chain((first,), batches)


def _tensors(batch: tuple[Any, ...]) -> tuple[Any, ...]:
    return tuple(value if hasattr(value, "asnumpy") else to_tensor(value) for value in batch)
