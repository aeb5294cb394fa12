"""Arrays in shared memory: what is read is what was put, and only what was offered is read."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import closing

import numpy as np
import pytest

from workers.slots import SlotReader, Slots


@pytest.fixture
def slots() -> Iterator[Slots]:
    with closing(Slots()) as slots:
        yield slots


@pytest.fixture
def reader(slots: Slots) -> Iterator[SlotReader]:
    with closing(SlotReader(slots.pid, slots.descriptor, slots.name)) as reader:
        yield reader


@pytest.mark.parametrize("dtype", ["bool", "float16", "float64", ">i4", "complex64"])
def test_arrays_are_read_as_they_were_put(slots: Slots, reader: SlotReader, dtype: str) -> None:
    arrays = [np.arange(6).reshape(2, 3).T.astype(dtype), np.array(1, dtype), np.zeros(0, dtype)]
    start = slots.put(arrays)
    native = np.dtype(dtype).newbyteorder("=")
    found = reader.arrays(start, [(array.shape, native) for array in arrays])
    for read, put in zip(found, arrays, strict=True):
        np.testing.assert_array_equal(read, put)


def test_a_slot_stays_as_it_is_while_the_other_one_is_filled(
    slots: Slots, reader: SlotReader
) -> None:
    described = [((4,), np.dtype(np.int64))]
    first, second = (slots.put([np.full(4, number)]) for number in (1, 2))
    (one,), (two,) = reader.arrays(first, described), reader.arrays(second, described)
    assert (one.tolist(), two.tolist()) == ([1] * 4, [2] * 4)
    assert slots.put([np.full(4, 3)]) == first


def test_slots_grow_for_larger_arrays(slots: Slots, reader: SlotReader) -> None:
    slots.put([np.zeros(4)])
    large = [np.arange(1000.0)]
    assert not slots.fits(large)
    start = slots.put(large)
    assert slots.fits(large)
    (found,) = reader.arrays(start, [((1000,), np.dtype(np.float64))])
    np.testing.assert_array_equal(found, large[0])


def test_memory_with_another_name_is_not_opened(slots: Slots) -> None:
    with pytest.raises(OSError, match="is not slots-0"):
        SlotReader(slots.pid, slots.descriptor, "slots-0")


def test_memory_that_could_shrink_is_not_opened() -> None:
    descriptor = os.memfd_create("slots-1")
    try:
        with pytest.raises(PermissionError, match="could shrink"):
            SlotReader(os.getpid(), descriptor, "slots-1")
    finally:
        os.close(descriptor)


def test_what_lies_outside_the_memory_is_an_error(slots: Slots, reader: SlotReader) -> None:
    start = slots.put([np.zeros(4)])
    with pytest.raises((TypeError, ValueError)):
        reader.arrays(start, [((1 << 20,), np.dtype(np.float64))])
