"""Predict data: every shape that users return it in, and what is none."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import pytest

from workers.data import DataError, batches_of
from workers.entry_point import FactoryError


class Tensor:
    """Looks like a tensor of MindSpore."""

    def asnumpy(self) -> np.ndarray:
        return np.zeros(1)


A, B = np.zeros(2), np.ones(3)
T = Tensor()


def generator() -> Iterator[np.ndarray]:
    yield A
    yield B


@pytest.mark.parametrize(
    ("make", "expected"),
    [
        (lambda: A, [(A,)]),
        (lambda: T, [(T,)]),
        (lambda: (A, T), [(A, T)]),  # a tuple is one batch ...
        (lambda: [A, T], [(A,), (T,)]),  # ... and a list is two
        (lambda: [(A, B), (A, T)], [(A, B), (A, T)]),
        (lambda: ((A, B), (A, T)), [(A, B), (A, T)]),
        (lambda: [[A, B]], [(A, B)]),  # as mindspore.dataset iterates
        (generator, [(A,), (B,)]),
    ],
)
def test_every_way_to_return_batches(
    make: Callable[[], Any], expected: list[tuple[Any, ...]]
) -> None:
    batches = list(batches_of(make(), "net:data"))
    assert [[id(value) for value in batch] for batch in batches] == [
        [id(value) for value in batch] for batch in expected
    ]


def test_batches_are_taken_one_at_a_time() -> None:
    taken = []

    def endless() -> Iterator[np.ndarray]:
        while True:
            taken.append(A)
            yield A

    batches = batches_of(endless(), "net:data")
    next(batches)
    next(batches)
    assert len(taken) == 2


@pytest.mark.parametrize(
    "batch", [(A, 3, None, "x"), (A, [B, {"c": T}]), {"ids": A, "mask": None, "past": (B, B)}]
)
def test_inputs_may_be_nested_named_and_plain(batch: Any) -> None:
    assert list(batches_of(batch, "net:data")) == [batch]
    assert list(batches_of(iter([batch, batch]), "net:data")) == [batch, batch]


def test_nested_inputs_are_cut_into_batches_together() -> None:
    batch = {"x": np.arange(5), "past": (np.arange(5) * 2, 7)}
    first, last = batches_of(batch, "net:data", batch_size=3)
    assert first["x"].tolist() == [0, 1, 2] and first["past"][0].tolist() == [0, 2, 4]
    assert last["x"].tolist() == [3, 4] and last["past"][1] == 7


@pytest.mark.parametrize(
    ("data", "problem"),
    [
        (None, "its return value is of type NoneType"),
        ("text", "its return value is of type str"),
        (3.5, "its return value is of type float"),
        ([], "its return value is empty"),
        ((), "its return value is empty"),
        ((A, object), "input 1 of its return value is of type type"),
        ((A, [B, {"x": object}]), "input 1 of its return value is of type type"),
        ({"x": 3}, "its return value is without a tensor"),
        ({"x": A, "y": {1}}, "input 'y' of its return value is of type set"),
        ([A, 3], "batch 1 is of type int"),
        ([("x", 1)], "batch 0 is without a tensor"),
        ([A, ()], "batch 1 is empty"),
    ],
)
def test_what_is_no_batch_is_named(data: Any, problem: str) -> None:
    with pytest.raises(DataError, match=f"net:data: {problem}; return a Tensor") as caught:
        list(batches_of(data, "net:data"))
    assert caught.value.exit_code == 2


def failing(error: Exception) -> Iterator[np.ndarray]:
    yield A
    raise error


@pytest.mark.parametrize("error", [ValueError("no such row"), FileNotFoundError("no such row")])
def test_data_that_raise_while_they_are_read_are_bad_input(error: Exception) -> None:
    batches = batches_of(failing(error), "net:data")
    assert len(next(batches)) == 1
    with pytest.raises(FactoryError, match="net:data raised .*Error: no such row .*test_data"):
        next(batches)


def test_a_disk_that_fails_while_data_are_read_is_no_bad_input() -> None:
    batches = batches_of(failing(TimeoutError("the server is silent")), "net:data")
    next(batches)
    with pytest.raises(TimeoutError, match="the server is silent"):
        next(batches)
