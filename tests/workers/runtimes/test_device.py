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
from mindspore.parallel.auto_parallel import AutoParallel

from workers.errors import InputError
from workers.resharding.layout import Layout
from workers.runtimes import device, parallel_context
from workers.runtimes.device import DeviceError, DeviceRuntime, LoadError
from workers.runtimes.foreseen_layout import ForesightError
from workers.runtimes.runtime import WantedParameter
from workers.spec import DeviceOptions, WorkerSpec

FIXTURES = Path(__file__).parents[2] / "fixtures"
ON_ASCEND = Path("/dev/davinci_manager").exists()

MakeSpec = Callable[..., WorkerSpec]


@dataclass
class StandIn:
    """What the runtime sees as ``mindspore``."""

    layouts: dict[str, Any]  # what infer_predict_layout returns
    group_sizes: dict[str, int] = field(default_factory=dict)
    init_error: Exception | None = None
    calls: list[SimpleNamespace] = field(default_factory=list)  # name, args, kwargs; in order

    network: Any = None  # that the model runs

    GRAPH_MODE = mindspore.GRAPH_MODE

    def __post_init__(self) -> None:
        self.set_context = self._recorded("set_context")
        self.set_auto_parallel_context = self._recorded("set_auto_parallel_context")
        self.runtime = SimpleNamespace(
            set_memory=self._recorded("runtime.set_memory"),
            max_memory_allocated=self._recorded("runtime.max_memory_allocated", lambda: 4096),
        )
        self.communication = SimpleNamespace(
            init=self._recorded("communication.init", self._init),
            get_group_size=self._recorded(
                "communication.get_group_size", lambda group: self.group_sizes[group]
            ),
        )
        model = SimpleNamespace(
            infer_predict_layout=self._recorded(
                "Model.infer_predict_layout", lambda *batch: self._cut()
            ),
            predict=self._recorded("Model.predict", lambda *batch: (batch[0], (batch[0] + 1,))),
        )
        self.Model = self._recorded("Model", lambda network: self._keep(network, model))

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

    def spy(self, name: str, method: Callable[..., Any]) -> Callable[..., Any]:
        """Return a method that is recorded and then called for real."""

        def call(cell: Any, *args: Any, **kwargs: Any) -> Any:
            self.calls.append(SimpleNamespace(name=name, args=args, kwargs=kwargs))
            return method(cell, *args, **kwargs)

        return call

    def _init(self) -> None:
        if self.init_error:
            raise self.init_error

    def _keep(self, network: Any, model: Any) -> Any:
        self.network = network
        return model

    def _cut(self) -> dict[str, Any]:
        """Leave slices in the parameters, as compiling does."""
        for parameter in self.network.get_parameters():
            if parameter.name in self.layouts:
                zeros = mindspore.Tensor(np.zeros(self.layouts[parameter.name][2]), parameter.dtype)
                parameter.set_data(zeros, slice_shape=True)
        return self.layouts


@pytest.fixture
def stand_in(monkeypatch: pytest.MonkeyPatch) -> StandIn:
    # What MindSpore 2.10 returned for the conftest's network on two ranks would look like this.
    whole = [[2], [-1], [2], 0, True, "", [2], [2], False, False, 0, 0]
    columns = [[1, 2], [-1, 0], [3, 1], 0, True, "", [3, 2], [3, 1], False, False, 0, 0]
    inputs = [[2], [-1, -1], [4, 3], 0, True, "", [4, 3], [4, 3], False, False, 0, 0]
    stand_in = StandIn(layouts={"x": inputs, "weight": columns, "scale": whole})
    for module in (device, parallel_context):
        monkeypatch.setattr(module, "mindspore", stand_in)
    for name in ("dataset_strategy", "pipeline", "load_param_strategy_file"):
        spy = stand_in.spy(f"AutoParallel.{name}", getattr(AutoParallel, name))
        monkeypatch.setattr(AutoParallel, name, spy)
    return stand_in


@pytest.fixture
def spec(make_spec: MakeSpec) -> WorkerSpec:
    return make_spec(rank=1, rank_size=2, device_id=5, device="ascend", strategy="/train.ckpt")


@pytest.fixture
def spec_with(make_spec: MakeSpec) -> MakeSpec:
    """Return a function that makes the spec of a rank with device options."""

    def make(parallel_mode: str = "semi_auto_parallel", **options: Any) -> WorkerSpec:
        told = DeviceOptions(**options)
        place = {"rank": 1, "rank_size": 2, "device": "ascend"}
        return make_spec(**place, parallel_mode=parallel_mode, device_options=told)

    return make


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
    assert runtime.device_memory_bytes() == 4096
    assert stand_in.names[4:] == [
        "Model.infer_predict_layout",
        "Model.predict",  # the conftest's data has three batches
        "Model.predict",
        "Model.predict",
        "runtime.max_memory_allocated",
    ]


def test_contexts_are_set_as_in_the_tutorial(stand_in: StandIn, spec: WorkerSpec) -> None:
    DeviceRuntime(spec).open()
    assert stand_in.call("set_context").kwargs == {
        "mode": mindspore.GRAPH_MODE,
        "device_target": "Ascend",
    }
    assert stand_in.call("communication.init").args == ()
    parallel = stand_in.call("set_auto_parallel_context").kwargs
    # The strategy of the training run, perhaps of other devices, is for the slices alone.
    assert parallel == {
        "parallel_mode": "semi_auto_parallel",
        "full_batch": True,
        "device_num": 2,
    }
    mindspore.set_auto_parallel_context(**parallel)  # MindSpore knows all of these keywords


def test_gpus_are_told_the_same(stand_in: StandIn, make_spec: MakeSpec) -> None:
    DeviceRuntime(make_spec(device="gpu")).open()
    assert stand_in.call("set_context").kwargs["device_target"] == "GPU"


def test_options_of_a_job_reach_the_contexts(stand_in: StandIn, spec_with: MakeSpec) -> None:
    spec = spec_with(
        parallel_mode="auto_parallel",
        search_mode="sharding_propagation",
        pipeline_stages=2,
        strategy_ckpt_load_file="/predict.ckpt",
        jit_level="O0",
        max_device_memory="30GB",
    )
    DeviceRuntime(spec).open()
    assert stand_in.names == [
        "set_context",
        "runtime.set_memory",
        "communication.init",
        "set_auto_parallel_context",
        "Model",
    ]
    context = stand_in.call("set_context").kwargs
    assert context["jit_config"] == {"jit_level": "O0"}
    assert stand_in.call("runtime.set_memory").kwargs == {"max_size": "30GB"}
    parallel = stand_in.call("set_auto_parallel_context").kwargs
    assert parallel == {
        "parallel_mode": "auto_parallel",
        "search_mode": "sharding_propagation",
        "full_batch": True,
        "device_num": 2,
        "pipeline_stages": 2,
        "pipeline_result_broadcast": True,
        "strategy_ckpt_load_file": "/predict.ckpt",
    }
    mindspore.set_context(**context | {"device_target": "CPU"})
    mindspore.set_auto_parallel_context(**parallel)


def test_an_auto_parallel_cell_is_told_what_the_context_would_be(
    stand_in: StandIn, spec_with: MakeSpec
) -> None:
    spec = spec_with(
        parallel_mode="auto_parallel",
        auto_parallel_cell=True,
        pipeline_stages=2,
        strategy_ckpt_load_file="/predict.ckpt",
    )
    DeviceRuntime(spec).open()
    assert stand_in.names == [
        "set_context",
        "communication.init",
        "AutoParallel.dataset_strategy",
        "AutoParallel.pipeline",
        "AutoParallel.load_param_strategy_file",
        "Model",
    ]
    assert stand_in.call("AutoParallel.dataset_strategy").args == ("full_batch",)
    assert stand_in.call("AutoParallel.pipeline").args == (2,)
    assert stand_in.call("AutoParallel.pipeline").kwargs == {"output_broadcast": True}
    assert stand_in.call("AutoParallel.load_param_strategy_file").args == ("/predict.ckpt",)
    assert isinstance(stand_in.network, AutoParallel)
    assert stand_in.network._parallel_mode == "recursive_programming"


def test_a_cell_without_options_divides_as_its_operators_say(
    stand_in: StandIn, spec_with: MakeSpec
) -> None:
    runtime = DeviceRuntime(spec_with(auto_parallel_cell=True))
    runtime.open()
    assert stand_in.names[2:] == ["AutoParallel.dataset_strategy", "Model"]
    assert stand_in.network._parallel_mode == "semi_auto"
    assert list(runtime.wanted_parameters()) == ["weight", "scale"]
    weight = np.array([[1], [2], [3]], np.float32)
    runtime.load({"weight": weight, "scale": np.ones(2, np.uint16)})
    np.testing.assert_array_equal(stand_in.network.network.weight.asnumpy(), weight)


@pytest.mark.parametrize("api", [False, True])
def test_the_users_own_auto_parallel_cell_is_left_as_it_is(
    stand_in: StandIn, make_spec: MakeSpec, api: bool
) -> None:
    options = DeviceOptions(auto_parallel_cell=api)
    spec = make_spec(network="make_parallel", rank_size=2, device="ascend", device_options=options)
    runtime = DeviceRuntime(spec)
    runtime.open()
    assert stand_in.names.count("AutoParallel.dataset_strategy") == 1  # the user's
    assert list(runtime.wanted_parameters()) == ["weight", "scale"]


def test_slices_may_be_read_before_the_device_is_taken(
    stand_in: StandIn, spec_with: MakeSpec
) -> None:
    runtime = DeviceRuntime(spec_with(load_before_init=True))
    runtime.open()
    wanted = runtime.wanted_parameters()
    assert wanted["weight"].layout.region(1, (3, 2)).as_slices() == np.s_[0:3, 1:2]
    weight = np.array([[1], [2], [3]], np.float32)
    runtime.load({"weight": weight, "scale": np.ones(2, np.uint16)})
    assert stand_in.names == []
    runtime.compile()
    assert stand_in.names == [
        "set_context",
        "communication.init",
        "set_auto_parallel_context",
        "Model",
        "Model.infer_predict_layout",
    ]
    np.testing.assert_array_equal(stand_in.network.weight.asnumpy(), weight)


def test_slices_that_were_read_by_another_layout_are_not_used(
    stand_in: StandIn, spec_with: MakeSpec, monkeypatch: pytest.MonkeyPatch
) -> None:
    rows = Layout((2,), ((0,),))
    foreseen = {
        "weight": WantedParameter(Layout((2,), ((), ())), (3, 2), "Float32"),  # not in columns
        "scale": WantedParameter(rows, (2,), "BFloat16"),
    }
    monkeypatch.setattr(device, "foresee", lambda spec: foreseen)
    runtime = DeviceRuntime(spec_with(load_before_init=True))
    runtime.open()
    assert runtime.wanted_parameters() == foreseen
    with pytest.raises(ForesightError, match=r"rank 1 .* MindSpore wants \[0:3, 1:2\] of weight"):
        runtime.compile()


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


def test_parameters_lie_on_the_memory_of_the_slices(stand_in: StandIn, spec: WorkerSpec) -> None:
    runtime = DeviceRuntime(spec)
    runtime.open()
    runtime.wanted_parameters()
    weight = np.arange(3, dtype=np.float32).reshape(3, 1)
    runtime.load({"weight": weight, "scale": np.array([0x3F00, 0xC000], np.uint16)})
    network = stand_in.network
    assert stand_in.call("Model").args == (network,)
    weight[:] += 1  # no copy was made, so the network sees this
    np.testing.assert_array_equal(network.weight.asnumpy(), weight)
    assert str(network.scale.dtype) == "BFloat16"
    np.testing.assert_array_equal(network.scale.asnumpy().astype(np.float32), [0.5, -2])


def test_a_slice_of_another_shape_than_the_graph_has_is_an_error(
    stand_in: StandIn, spec: WorkerSpec
) -> None:
    runtime = DeviceRuntime(spec)
    runtime.open()
    runtime.wanted_parameters()
    with pytest.raises(LoadError, match=r"rank 1: .* weight with the shape \(3, 1\), .* \(3, 2\)"):
        runtime.load({"weight": np.ones((3, 2), np.float32)})


def test_parameter_without_a_slice_keeps_what_mindspore_gave_it(
    stand_in: StandIn, spec: WorkerSpec
) -> None:
    runtime = DeviceRuntime(spec)
    runtime.open()
    runtime.wanted_parameters()
    runtime.load({"weight": np.ones((3, 1), np.float32)})
    np.testing.assert_array_equal(stand_in.network.scale.asnumpy().astype(np.float32), [0, 0])


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
