"""The device runtime makes the calls of MindSpore's tutorial, in its order and with its arguments.

There is no device here. A stand-in takes the place of the few names that the runtime uses; every
call to it must fit the signature of the real function, and what needs no device runs for real.
"""

from __future__ import annotations

import copy
import inspect
import json
import operator
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import mindspore
import numpy as np
import pytest

from workers.errors import InputError
from workers.resharding.layout import Layout
from workers.runtimes import device
from workers.runtimes.device import DeviceError, DeviceRuntime, LoadError
from workers.spec import WorkerSpec

FIXTURES = Path(__file__).parents[2] / "fixtures"
ON_ASCEND = Path("/dev/davinci_manager").exists()

MakeSpec = Callable[..., WorkerSpec]


@dataclass
class StandIn:
    """What the runtime sees as ``mindspore``."""

    layouts: dict[str, Any]  # what infer_predict_layout returns
    group_sizes: dict[str, int] = field(default_factory=dict)
    init_error: Exception | None = None
    really_load: bool = False
    not_loaded: list[str] = field(default_factory=list)
    calls: list[SimpleNamespace] = field(default_factory=list)  # name, args, kwargs; in order

    GRAPH_MODE = mindspore.GRAPH_MODE
    Parameter = mindspore.Parameter

    def __post_init__(self) -> None:
        self.set_context = self._recorded("set_context")
        self.set_auto_parallel_context = self._recorded("set_auto_parallel_context")
        self.load_param_into_net = self._recorded("load_param_into_net", self._load)
        self.communication = SimpleNamespace(
            init=self._recorded("communication.init", self._init),
            get_group_size=self._recorded(
                "communication.get_group_size", lambda group: self.group_sizes[group]
            ),
        )
        model = SimpleNamespace(
            infer_predict_layout=self._recorded(
                "Model.infer_predict_layout", lambda *batch: self.layouts
            ),
            predict=self._recorded("Model.predict", lambda *batch: (batch[0], (batch[0] + 1,))),
        )
        self.Model = self._recorded("Model", lambda network: model)

    @property
    def names(self) -> list[str]:
        return [call.name for call in self.calls]

    def call(self, name: str) -> SimpleNamespace:
        (found,) = [call for call in self.calls if call.name == name]
        return found

    def _recorded(
        self, name: str, answer: Callable[..., Any] = lambda *args, **kwargs: None
    ) -> Callable[..., Any]:
        real = operator.attrgetter(name)(mindspore)
        bound_to = (None,) if name.startswith("Model.") else ()  # self, of a method

        def call(*args: Any, **kwargs: Any) -> Any:
            inspect.signature(real).bind(*bound_to, *args, **kwargs)
            self.calls.append(SimpleNamespace(name=name, args=args, kwargs=kwargs))
            return answer(*args, **kwargs)

        return call

    def _init(self) -> None:
        if self.init_error:
            raise self.init_error

    def _load(self, *args: Any, **kwargs: Any) -> Any:
        if self.really_load:
            return mindspore.load_param_into_net(*args, **kwargs)
        return self.not_loaded, []


@pytest.fixture
def stand_in(monkeypatch: pytest.MonkeyPatch) -> StandIn:
    # What MindSpore 2.10 returned for the conftest's network on two ranks would look like this.
    whole = [[2], [-1], [2], 0, True, "", [2], [2], False, False, 0, 0]
    columns = [[1, 2], [-1, 0], [3, 1], 0, True, "", [3, 2], [3, 1], False, False, 0, 0]
    inputs = [[2], [-1, -1], [4, 3], 0, True, "", [4, 3], [4, 3], False, False, 0, 0]
    stand_in = StandIn(layouts={"x": inputs, "weight": columns, "scale": whole})
    monkeypatch.setattr(device, "mindspore", stand_in)
    return stand_in


@pytest.fixture
def spec(make_spec: MakeSpec) -> WorkerSpec:
    return make_spec(rank=1, rank_size=2, device_id=5, device="ascend", strategy="/train.ckpt")


@pytest.fixture(autouse=True)
def _leave_parallel_context() -> Iterator[None]:
    yield
    mindspore.reset_auto_parallel_context()


def test_calls_come_in_the_order_of_the_tutorial(stand_in: StandIn, spec: WorkerSpec) -> None:
    runtime = DeviceRuntime(spec)
    runtime.open()
    assert stand_in.names == [
        "set_context",
        "communication.init",
        "set_auto_parallel_context",
        "Model",
    ]
    runtime.wanted_parameters()
    runtime.load({"weight": np.ones((3, 1), np.float32), "scale": np.ones(2, np.uint16)})
    runtime.compile()
    for batch in runtime.batches():
        runtime.predict(batch)
    assert stand_in.names[4:] == [
        "Model.infer_predict_layout",
        "load_param_into_net",
        "Model.predict",  # the conftest's data has three batches
        "Model.predict",
        "Model.predict",
    ]


def test_contexts_are_set_as_in_the_tutorial(stand_in: StandIn, spec: WorkerSpec) -> None:
    DeviceRuntime(spec).open()
    assert stand_in.call("set_context").kwargs == {
        "mode": mindspore.GRAPH_MODE,
        "device_target": "Ascend",
    }
    assert stand_in.call("communication.init").args == ()
    parallel = stand_in.call("set_auto_parallel_context").kwargs
    assert parallel == {
        "parallel_mode": "semi_auto_parallel",
        "full_batch": True,
        "device_num": 2,
        "strategy_ckpt_load_file": "/train.ckpt",
    }
    mindspore.set_auto_parallel_context(**parallel)  # MindSpore knows all of these keywords


def test_job_without_strategy_file_names_none(stand_in: StandIn, make_spec: MakeSpec) -> None:
    DeviceRuntime(make_spec(device="gpu")).open()
    assert stand_in.call("set_context").kwargs["device_target"] == "GPU"
    parallel = stand_in.call("set_auto_parallel_context").kwargs
    assert "strategy_ckpt_load_file" not in parallel


def test_layout_is_inferred_with_the_first_batch(stand_in: StandIn, spec: WorkerSpec) -> None:
    runtime = DeviceRuntime(spec)
    runtime.open()
    wanted = runtime.wanted_parameters()
    (inputs,) = stand_in.call("Model.infer_predict_layout").args
    np.testing.assert_array_equal(inputs.asnumpy(), np.zeros((4, 3)))
    assert list(wanted) == ["weight", "scale"]  # not the input x, which MindSpore lists too
    assert wanted["weight"].layout == Layout((1, 2), ((), (1,)))
    assert wanted["weight"].full_shape == (3, 2)
    assert [parameter.dtype for parameter in wanted.values()] == ["Float32", "BFloat16"]


def test_size_of_an_optimizer_shard_group_is_asked_of_mindspore(
    stand_in: StandIn, spec: WorkerSpec
) -> None:
    stand_in.layouts["scale"][5] = "2-5004544844489628105"
    stand_in.group_sizes = {"2-5004544844489628105": 2}
    runtime = DeviceRuntime(spec)
    runtime.open()
    assert runtime.wanted_parameters()["scale"].layout.optimizer_shard == 2


def test_layout_that_mindspore_recorded_gives_this_rank_its_columns(
    stand_in: StandIn, make_spec: MakeSpec
) -> None:
    recorded = json.loads((FIXTURES / "matmul_2x4_col/layouts.json").read_text())
    stand_in.layouts = {"weight": recorded["predict_layout"]["matmul_weight"]}
    runtime = DeviceRuntime(make_spec(rank=6, rank_size=8, device="ascend"))
    runtime.open()
    weight = runtime.wanted_parameters()["weight"]
    # Rank 6 is (1, 2) of 2 x 4 devices: the third quarter of 16 columns.
    assert weight.layout.region(6, weight.full_shape).as_slices() == np.s_[0:96, 8:12]


def test_mindspore_itself_loads_the_slices(stand_in: StandIn, spec: WorkerSpec) -> None:
    stand_in.really_load = True
    runtime = DeviceRuntime(spec)
    runtime.open()
    weight = np.arange(6, dtype=np.float32).reshape(3, 2)
    runtime.load({"weight": weight, "scale": np.array([0x3F00, 0xC000], np.uint16)})
    network, loaded = stand_in.call("load_param_into_net").args
    assert stand_in.call("load_param_into_net").kwargs == {"strict_load": True}
    assert stand_in.call("Model").args == (network,)
    np.testing.assert_array_equal(network.weight.asnumpy(), weight)
    assert str(network.scale.dtype) == "BFloat16"
    np.testing.assert_array_equal(network.scale.asnumpy().astype(np.float32), [0.5, -2])


def test_parameter_that_mindspore_left_out_is_an_error(
    stand_in: StandIn, spec: WorkerSpec
) -> None:
    stand_in.not_loaded = ["scale"]
    runtime = DeviceRuntime(spec)
    runtime.open()
    with pytest.raises(LoadError, match="rank 1: MindSpore did not load scale"):
        runtime.load({"weight": np.ones((3, 2), np.float32)})


def test_parameter_that_may_be_missing_is_left_to_mindspore(
    stand_in: StandIn, make_spec: MakeSpec
) -> None:
    stand_in.not_loaded = ["scale"]
    runtime = DeviceRuntime(make_spec(device="ascend", allow_missing=("sc*",)))
    runtime.open()
    runtime.load({"weight": np.ones((3, 2), np.float32)})
    assert stand_in.call("load_param_into_net").kwargs == {"strict_load": True}


def test_nested_outputs_come_as_flat_arrays(stand_in: StandIn, spec: WorkerSpec) -> None:
    runtime = DeviceRuntime(spec)
    runtime.open()
    plain, plus_one = runtime.predict((mindspore.Tensor(np.zeros((4, 3), np.float32)),))
    np.testing.assert_array_equal(plus_one - plain, np.ones((4, 3)))


def test_ranks_that_cannot_meet_are_a_clear_error(stand_in: StandIn, spec: WorkerSpec) -> None:
    stand_in.init_error = RuntimeError("Ascend collective init failed: rank table\n\n---- C++ ...")
    with pytest.raises(DeviceError) as raised:
        DeviceRuntime(spec).open()
    assert str(raised.value).startswith(
        "rank 1 cannot use Ascend device 5 of 10.0.0.1: Ascend collective init failed: rank table;"
    )
    assert isinstance(raised.value, InputError)
    assert str(copy.copy(raised.value)) == str(raised.value)  # as it travels between processes


@pytest.mark.skipif(ON_ASCEND, reason="there is a device here")
def test_machine_without_device_is_refused_by_mindspore_itself(spec: WorkerSpec) -> None:
    with pytest.raises(DeviceError, match="Unsupported device target Ascend"):
        DeviceRuntime(spec).open()


def test_close_is_allowed_at_any_time_and_twice(stand_in: StandIn, spec: WorkerSpec) -> None:
    runtime = DeviceRuntime(spec)
    runtime.close()
    runtime.open()
    runtime.close()
    runtime.close()
