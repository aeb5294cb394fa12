"""Initial values: what the network's own initialisers give, the same on all ranks."""

from __future__ import annotations

import zlib
from types import SimpleNamespace
from typing import Any

import mindspore as ms
import numpy as np
import pytest
from mindspore.common.initializer import Normal, initializer

from workers.resharding.layout import Layout
from workers.spmd.capture import set_parallel_context
from workers.spmd.initial import InitialValues, deferred

GRID = Layout((2, 4), ((0,), (1,)))


@pytest.fixture(autouse=True)
def parallel_context() -> Any:
    """Build parameters as a rank does: they hold nothing yet."""
    set_parallel_context(0, 8)
    yield
    ms.reset_auto_parallel_context()


def take(parameter: Any, layout: Layout, rank: int) -> np.ndarray:
    placed: Any = SimpleNamespace(layout=layout, value=SimpleNamespace(shape=parameter.shape))
    return InitialValues([parameter], ["*"]).take(parameter.name, placed, rank)


def normal(dtype: Any = ms.float32) -> Any:
    return ms.Parameter(initializer(Normal(0.5), (4, 8), dtype), name="head.weight")


def test_slices_of_all_ranks_are_the_whole_that_mindspore_initialises() -> None:
    np.random.seed(zlib.crc32(b"head.weight"))
    whole = initializer(Normal(0.5), (4, 8), ms.float32).init_data().asnumpy()
    assert 0.2 < whole.std() < 0.8
    for rank in range(8):  # each is a process of its own, and has other random numbers
        np.random.seed(rank)
        box = GRID.region(rank, (4, 8))
        np.testing.assert_array_equal(take(normal(), GRID, rank), whole[box.as_slices()])


def test_the_random_numbers_of_the_user_go_on_as_if_nothing_was_drawn() -> None:
    np.random.seed(7)
    wanted = np.random.random()
    np.random.seed(7)
    take(normal(), GRID, 0)
    assert np.random.random() == wanted


def test_a_value_that_the_user_gave_is_cut_as_it_is() -> None:
    whole = np.arange(32, dtype=np.float32).reshape(4, 8)
    given = ms.Parameter(ms.Tensor(whole), name="table")
    np.testing.assert_array_equal(take(given, GRID, 5), whole[2:4, 2:4])


def test_bfloat16_comes_as_its_bits() -> None:
    ones = ms.Parameter(initializer("ones", (4, 8), ms.bfloat16), name="ones")
    bits = take(ones, GRID, 0)
    assert bits.dtype == np.uint16 and (bits == 0x3F80).all()


def test_only_parameters_that_a_pattern_names_are_kept() -> None:
    assert InitialValues([normal()], ["body.*"])._sources == {}


@pytest.mark.parametrize("mode", ["stand_alone", "data_parallel"])
def test_a_network_for_one_device_gets_the_same_values(mode: str) -> None:
    ms.reset_auto_parallel_context()
    if mode != "stand_alone":
        ms.set_auto_parallel_context(parallel_mode=mode, device_num=2)
    with deferred():
        head = normal()
    assert ms.get_auto_parallel_context("parallel_mode") == mode
    np.random.seed(zlib.crc32(b"head.weight"))
    whole = initializer(Normal(0.5), (4, 8), ms.float32).init_data().asnumpy()
    found = InitialValues([head], ["head.*"]).take_whole("head.weight")
    np.testing.assert_array_equal(found, whole)
