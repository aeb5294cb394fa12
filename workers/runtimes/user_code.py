"""Call the two factories that the user named, and check that a network can be run on the result."""

from __future__ import annotations

import inspect
from collections.abc import Iterator
from itertools import chain, islice
from typing import Any

from mindspore import nn
from mindspore.train import Model

from workers.data import DataError, batches_of, count_batches, require_labelled, split_labels
from workers.data_files import DataFiles
from workers.dealing import own_batches
from workers.entry_point import blaming, load_entry_point
from workers.errors import InputError
from workers.nested import with_tensors
from workers.runtimes.evaluation import Evaluation
from workers.spec import WorkerSpec
from workers.tensors import as_arguments, to_tensor
from workers.user_data import is_sharded, make_data, make_whole_data


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
    with blaming(spec.network):
        network = load_entry_point(spec.network, spec.search_path)(**spec.network_args)
    if not isinstance(network, nn.Cell):
        raise NetworkError(spec.network, type(network).__name__)
    network.set_train(False)
    return network


class Batches(Iterator[tuple[Any, ...]]):
    """An iterator that may know how many batches are to come: ``operator.length_hint`` asks it."""

    def __init__(self, batches: Iterator[tuple[Any, ...]], count: int) -> None:
        self._batches, self._count = batches, count

    def __next__(self) -> tuple[Any, ...]:
        return next(self._batches)

    def __length_hint__(self) -> int:
        return self._count


def make_batches(
    spec: WorkerSpec, network: nn.Cell
) -> tuple[tuple[Any, ...], Iterator[tuple[Any, ...]]]:
    """Return the inputs of the first batch, to compile with, and all batches, the first included.

    Inputs that come by name are put in the order in which the network takes them.

    The user's data is iterated once, and one batch is read ahead: it may be a generator. In
    task "eval" the batches end in their labels, which are no input of the network. Of files that
    the ranks share, the batches are those of this rank.
    """
    if spec.task == "eval":
        Evaluation(spec)  # to refuse now what would be refused when all is predicted
    data, source = make_data(spec), spec.predict_data
    signature = inspect.signature(network.construct)

    def taken(batch: Any) -> tuple[Any, ...]:
        inputs = _positional(with_tensors(batch, _tensor), signature, source)
        if spec.task != "eval":
            _require_taken(inputs, signature, source)
        return inputs

    if isinstance(data, DataFiles):
        numbers = own_batches(spec, len(data))
        first, found = taken(data[0]), data.read_ahead(numbers)
        batches = Batches(map(taken, found), len(numbers))
    else:
        # A metric may be a mean over batches: those of an evaluation stay what the user made.
        shard = is_sharded(spec)
        parts = spec.rank_size if spec.shares_data and not shard and spec.task != "eval" else 1
        all_batches = map(taken, batches_of(data, source, spec.batch_size, parts, shard))
        first = next(all_batches, ())
        if not first:  # the shard is empty: what the network is compiled with is of the whole
            whole = batches_of(make_whole_data(spec), source, spec.batch_size)
            return split_labels(taken(next(whole)), spec.task)[0], Batches(all_batches, 0)
        skipped = 0 if spec.shares_data else spec.first_batch  # shares count what they skip
        count = count_batches(data, spec.batch_size, parts)
        to_come = islice(chain((first,), all_batches), skipped, None)
        batches = Batches(to_come, max(0, count - skipped))
    if spec.task == "eval":
        require_labelled(first, source, "batch 0")
    return split_labels(first, spec.task)[0], batches


def predicted(model: Model, batch: tuple[Any, ...]) -> Any:
    """Return what ``Model.predict`` does; it refuses containers, its network takes them."""
    arguments = as_arguments(batch)
    plain = all(given is value for given, value in zip(arguments, batch, strict=True))
    return model.predict(*batch) if plain else model.predict_network(*arguments)


def _positional(batch: Any, signature: inspect.Signature, source: str) -> tuple[Any, ...]:
    if not isinstance(batch, dict):
        return tuple(batch)
    try:
        bound = signature.bind(**batch)
    except TypeError as error:
        reason = f"with inputs {', '.join(batch)}, where construct{signature} says: {error}"
        raise DataError(source, "a batch", reason) from error
    bound.apply_defaults()
    if bound.kwargs:
        reason = f"with {', '.join(bound.kwargs)}, which construct takes by name only"
        raise DataError(source, "a batch", reason)
    return bound.args


def _require_taken(inputs: tuple[Any, ...], signature: inspect.Signature, source: str) -> None:
    """See that the network takes so many: else MindSpore ends in a page of its own internals."""
    try:
        signature.bind(*inputs)
    except TypeError as error:
        hint = " (labels go with --task eval)" if len(inputs) > 1 else ""
        reason = f"of {len(inputs)} inputs, where construct{signature} says: {error}{hint}"
        raise DataError(source, "a batch", reason) from error


def _tensor(value: Any) -> Any:
    return value if hasattr(value, "asnumpy") else to_tensor(value)
