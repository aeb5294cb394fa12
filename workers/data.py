"""Turn what the user's data callable returned into batches. Knows tensors by their looks alone."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sized
from operator import itemgetter
from typing import Any

import numpy as np

from workers.entry_point import FactoryError, blaming
from workers.errors import InputError
from workers.nested import is_tensor, leaves, stranger_in, tensors_in, with_tensors

_END = object()
_WRONG_PATH = (FileNotFoundError, NotADirectoryError, IsADirectoryError, PermissionError)


class DataError(InputError):
    """The predict data holds something that is no input of a network."""

    def __init__(self, source: str, where: str, found: str) -> None:
        super().__init__(source, where, found)
        self.source, self.where, self.found = source, where, found

    def __str__(self) -> str:
        return (
            f"{self.source}: {self.where} is {self.found}; return a Tensor or an array, a tuple"
            " of them (several inputs of one batch) or a dict (inputs by name), or an iterable of"
            " such batches"
        )


def batches_of(
    data: Any, source: str, batch_size: int | None = None, parts: int = 1, shard: bool = False
) -> Iterator[Any]:
    """Yield the inputs of each prediction: a tuple a batch, or a dict of inputs by name.

    A tensor is one batch; so is a tuple with a tensor in it, the inputs of a network that takes
    several, and a dict of them. Anything else is iterated: a list of tensors is that many
    batches. An input may also be a tuple, list or dict of tensors, or a plain value.

    Args:
        source: the name of the callable that returned ``data``, for errors.
        batch_size: cut tensors into batches of so many samples.
        parts: cut them into so many batches where there is no batch size.
        shard: ``data`` are a part of the whole, and may have no samples.

    Raises:
        DataError: there is no batch, or one that is not made of tensors.
    """
    if is_tensor(data):
        batches = _cut((data,), batch_size, parts)
    elif _is_batch(data):
        batches = _cut(_batch(data, source, "its return value"), batch_size, parts)
    else:
        batches = _iterate(data, source, may_be_empty=shard)
    yield from filter(samples_of, batches) if shard else batches


def _is_batch(data: Any) -> bool:
    """Tell inputs of one prediction from an iterable of batches."""
    return isinstance(data, Mapping) or isinstance(data, tuple) and any(map(is_tensor, data))


def count_batches(data: Any, batch_size: int | None = None, parts: int = 1) -> int:
    """Return how many batches ``batches_of`` will yield; 0: the data do not say."""
    if is_tensor(data) or _is_batch(data):
        size = _cut_size(data, batch_size, parts)
        return -(-samples_of(data) // size) if size else 1
    if callable(size_of := getattr(data, "get_dataset_size", None)):
        return int(size_of())
    return len(data) if isinstance(data, Sized) else 0


def _cut_size(batch: Any, batch_size: int | None, parts: int) -> int:
    """Return how many samples go into a batch; 0: all of them."""
    if batch_size is not None or parts == 1:
        return batch_size or 0
    return max(1, -(-samples_of(batch) // parts))


def _cut(
    batch: Any, batch_size: int | None, parts: int
) -> Iterator[Any]:
    size = _cut_size(batch, batch_size, parts)
    if not size:
        yield batch
        return
    for start in range(0, max(1, samples_of(batch)), size):
        yield with_tensors(batch, itemgetter(slice(start, start + size)))


def _iterate(data: Any, source: str, may_be_empty: bool) -> Iterator[Any]:
    if not isinstance(data, Iterable) or isinstance(data, (str, bytes)):
        raise DataError(source, "its return value", _described(data))
    with blaming(source):
        iterator = iter(data)
    number = 0
    while (batch := _next(iterator, source)) is not _END:
        yield _batch(batch, source, f"batch {number}")
        number += 1
    if number == 0 and not may_be_empty:
        raise DataError(source, "its return value", "empty")


def _next(iterator: Iterator[Any], source: str) -> Any:
    """Return the next batch, or _END. What the user's code raises meanwhile is bad input.

    Raises:
        FactoryError: it raised.
        OSError: a disk or server failed it; another try may go better. No file comes to be there.
    """
    try:
        with blaming(source):
            return next(iterator, _END)
    except FactoryError as error:
        if isinstance(error.__cause__, OSError) and not isinstance(error.__cause__, _WRONG_PATH):
            raise error.__cause__ from None
        raise


def _batch(batch: Any, source: str, where: str) -> Any:
    if is_tensor(batch):
        return (batch,)
    if not isinstance(batch, (tuple, list, Mapping)) or not batch:
        raise DataError(source, where, _described(batch))
    named = batch if isinstance(batch, Mapping) else dict(enumerate(batch))
    for index, value in named.items():
        if (stranger := stranger_in(value)) is not None:
            raise DataError(source, f"input {index!r} of {where}", _described(stranger))
    if not tensors_in(batch):
        raise DataError(source, where, "without a tensor")
    return dict(batch) if isinstance(batch, Mapping) else tuple(batch)


def require_labelled(batch: Any, source: str, where: str) -> None:
    """Check that a batch can be evaluated.

    Raises:
        DataError: it is no pair of an input and its labels.
    """
    if isinstance(batch, Mapping) or len(batch) != 2:
        values = "values by name" if isinstance(batch, Mapping) else f"{len(batch)} values"
        found = f"made of {values}, where an evaluation needs (input, label)"
        raise DataError(source, where, found)


def split_labels(batch: tuple[Any, ...], task: str) -> tuple[tuple[Any, ...], tuple[Any, ...]]:
    """Return the inputs of the network, and the labels that an evaluation has behind them."""
    return (batch[:-1], batch[-1:]) if task == "eval" else (batch, ())


def array_of(value: Any) -> np.ndarray:
    """Return the elements of one input, tensor or array; of a plain value, what it looks like."""
    if not is_tensor(value):
        return np.frombuffer(repr(value).encode(), np.uint8)
    array: np.ndarray = value if isinstance(value, np.ndarray) else value.asnumpy()
    return array


def arrays_of(batch: Any) -> Iterator[np.ndarray]:
    """Yield all that a prediction is made from."""
    return map(array_of, leaves(batch))


def samples_of(batch: Any) -> int:
    """Return how many samples a batch has: the rows of its first tensor."""
    return len(array_of(tensors_in(batch)[0]))


def _described(value: Any) -> str:
    empty = isinstance(value, (tuple, list)) and not value
    return "empty" if empty else f"of type {type(value).__name__}"
