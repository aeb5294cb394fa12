"""Turn what the user's data callable returned into batches. Knows tensors by their looks alone."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sized
from typing import Any

import numpy as np

from workers.errors import InputError


class DataError(InputError):
    """The predict data holds something that is no input of a network."""

    def __init__(self, source: str, where: str, found: str) -> None:
        super().__init__(source, where, found)
        self.source, self.where, self.found = source, where, found

    def __str__(self) -> str:
        return (
            f"{self.source}: {self.where} is {self.found}; return a Tensor or an array, a tuple"
            " of them (several inputs of one batch), or an iterable of such batches"
        )


def batches_of(
    data: Any, source: str, batch_size: int | None = None, parts: int = 1
) -> Iterator[tuple[Any, ...]]:
    """Yield the inputs of each prediction, one tuple a batch.

    A tensor is one batch; so is a tuple of tensors, the inputs of a network that takes
    several. Anything else is iterated: a list of tensors is that many batches.

    Args:
        source: the name of the callable that returned ``data``, for errors.
        batch_size: cut tensors into batches of so many samples.
        parts: cut them into so many batches where there is no batch size.

    Raises:
        DataError: there is no batch, or one that is not made of tensors.
    """
    if _is_tensor(data):
        yield from _cut((data,), batch_size, parts)
    elif isinstance(data, tuple) and any(map(_is_tensor, data)):
        yield from _cut(_batch(data, source, "its return value"), batch_size, parts)
    else:
        yield from _iterate(data, source)


def count_batches(data: Any, batch_size: int | None = None, parts: int = 1) -> int:
    """Return how many batches ``batches_of`` will yield; 0: the data do not say."""
    first = data[0] if isinstance(data, tuple) and data else data
    if _is_tensor(first):
        size = _cut_size(first, batch_size, parts)
        return -(-len(array_of(first)) // size) if size else 1
    if callable(size_of := getattr(data, "get_dataset_size", None)):
        return int(size_of())
    return len(data) if isinstance(data, Sized) else 0


def _cut_size(value: Any, batch_size: int | None, parts: int) -> int:
    """Return how many samples go into a batch; 0: all of them."""
    if batch_size is not None or parts == 1:
        return batch_size or 0
    return max(1, -(-len(array_of(value)) // parts))


def _cut(
    batch: tuple[Any, ...], batch_size: int | None, parts: int
) -> Iterator[tuple[Any, ...]]:
    size = _cut_size(batch[0], batch_size, parts)
    if not size:
        yield batch
        return
    for start in range(0, max(1, len(array_of(batch[0]))), size):
        yield tuple(value[start : start + size] for value in batch)


def _iterate(data: Any, source: str) -> Iterator[tuple[Any, ...]]:
    if not isinstance(data, Iterable) or isinstance(data, (Mapping, str, bytes)):
        raise DataError(source, "its return value", _described(data))
    number = -1
    for number, batch in enumerate(data):
        yield _batch(batch, source, f"batch {number}")
    if number < 0:
        raise DataError(source, "its return value", "empty")


def _batch(batch: Any, source: str, where: str) -> tuple[Any, ...]:
    if _is_tensor(batch):
        return (batch,)
    if not isinstance(batch, (tuple, list)) or not batch:
        raise DataError(source, where, _described(batch))
    for index, value in enumerate(batch):
        if not _is_tensor(value):
            raise DataError(source, f"input {index} of {where}", _described(value))
    return tuple(batch)


def require_labelled(batch: tuple[Any, ...], source: str, where: str) -> None:
    """Check that a batch can be evaluated.

    Raises:
        DataError: it is no pair of an input and its labels.
    """
    if len(batch) != 2:
        found = f"made of {len(batch)} values, where an evaluation needs (input, label)"
        raise DataError(source, where, found)


def split_labels(batch: tuple[Any, ...], task: str) -> tuple[tuple[Any, ...], tuple[Any, ...]]:
    """Return the inputs of the network, and the labels that an evaluation has behind them."""
    return (batch[:-1], batch[-1:]) if task == "eval" else (batch, ())


def array_of(value: Any) -> np.ndarray:
    """Return the elements of one input, tensor or array."""
    array: np.ndarray = value if isinstance(value, np.ndarray) else value.asnumpy()
    return array


def _is_tensor(value: Any) -> bool:
    return isinstance(value, np.ndarray) or callable(getattr(value, "asnumpy", None))


def _described(value: Any) -> str:
    empty = isinstance(value, (tuple, list)) and not value
    return "empty" if empty else f"of type {type(value).__name__}"
