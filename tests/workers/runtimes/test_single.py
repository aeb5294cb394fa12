"""One device runs the whole network with the weights that it is given."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest

from workers.data import DataError
from workers.errors import InputError
from workers.resharding.layout import Layout
from workers.runtimes.single import SingleRuntime
from workers.runtimes.user_code import NetworkError
from workers.spec import WorkerSpec

MakeSpec = Callable[..., WorkerSpec]

WEIGHT = np.arange(6, dtype=np.float32).reshape(3, 2)
SCALE = np.array([0x3F00, 0xC000], dtype=np.uint16)  # 0.5 and -2 as bfloat16


def test_every_parameter_is_wanted_whole_by_rank_0(make_spec: MakeSpec) -> None:
    runtime = SingleRuntime(make_spec())
    runtime.open()
    wanted = runtime.wanted_parameters()
    assert {name: (w.full_shape, w.dtype) for name, w in wanted.items()} == {
        "weight": ((3, 2), "Float32"),
        "scale": ((2,), "BFloat16"),
    }
    assert wanted["weight"].layout == Layout(device_matrix=(1,), axes=((), ()))
    assert wanted["weight"].layout.region(0, (3, 2)).shape == (3, 2)


def test_every_batch_of_a_generator_is_predicted_once_and_in_order(make_spec: MakeSpec) -> None:
    runtime = SingleRuntime(make_spec())
    runtime.open()
    runtime.wanted_parameters()
    runtime.load({"weight": WEIGHT.copy(), "scale": SCALE.copy()})
    runtime.compile()
    outputs = [runtime.predict(batch) for batch in runtime.batches()]
    assert len(outputs) == 3
    for number, (plain, scaled) in enumerate(outputs):
        # each row of x is (number, number, number): a column of y is its sum of WEIGHT
        np.testing.assert_array_equal(plain, [[6 * number, 9 * number]] * 4)
        np.testing.assert_array_equal(scaled, [[3 * number, -18 * number]] * 4)


def test_parameters_lie_on_the_memory_of_the_slices(make_spec: MakeSpec) -> None:
    runtime = SingleRuntime(make_spec(predict_data="array"))
    runtime.open()
    weight = WEIGHT.copy()
    runtime.load({"weight": weight, "scale": SCALE.copy()})
    weight[:] = 1  # no copy was made, so the network sees this
    runtime.compile()
    (batch,) = runtime.batches()
    np.testing.assert_array_equal(runtime.predict(batch)[0], np.full((4, 2), 3, np.float32))


def test_a_parameter_without_a_slice_keeps_the_value_that_the_network_gave(
    make_spec: MakeSpec,
) -> None:
    runtime = SingleRuntime(make_spec(predict_data="array", allow_missing=("weight",)))
    runtime.open()
    runtime.load({"scale": SCALE.copy()})
    runtime.compile()
    (batch,) = runtime.batches()
    np.testing.assert_array_equal(runtime.predict(batch)[0], np.zeros((4, 2), np.float32))


def test_factory_that_returns_no_network_is_named(make_spec: MakeSpec) -> None:
    with pytest.raises(NetworkError, match="make_nothing: it returned something of type NoneType"):
        SingleRuntime(make_spec(network="make_nothing")).open()
    assert issubclass(NetworkError, InputError)


def test_data_without_a_batch_is_refused_before_anything_is_loaded(make_spec: MakeSpec) -> None:
    with pytest.raises(DataError, match="empty"):
        SingleRuntime(make_spec(predict_data="empty")).open()


def test_close_is_allowed_at_any_time_and_twice(make_spec: MakeSpec) -> None:
    runtime = SingleRuntime(make_spec())
    runtime.close()
    runtime.open()
    runtime.close()
    runtime.close()
