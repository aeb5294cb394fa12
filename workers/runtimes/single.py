"""Run the network whole on one device, without a parallel context. One rank."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import nullcontext
from typing import Any

import mindspore
import numpy as np

from workers.data import count_batches
from workers.resharding.layout import Layout
from workers.runtimes.evaluation import Deliver, Evaluation
from workers.runtimes.runtime import WantedParameter
from workers.runtimes.user_code import Batches, make_batches, make_network, predicted
from workers.spec import WorkerSpec
from workers.spmd.initial import InitialValues, deferred
from workers.spmd.world import set_world
from workers.tensors import as_arguments, to_arrays, to_tensor
from workers.user_data import make_data


class SingleRuntime:
    """The ``Runtime`` of a network that nobody divides; it can evaluate by itself."""

    def __init__(self, spec: WorkerSpec) -> None:
        self._spec = spec
        self._network: Any = None
        self._model: Any = None
        self._initial = InitialValues()
        self._first: tuple[Any, ...] = ()
        self._batches: Iterator[tuple[Any, ...]] = iter(())
        self._evaluation: Evaluation | None = None
        self._data: Any = None  # to evaluate

    def open(self) -> None:
        """Build the network and its input; the device is MindSpore's choice if not the CPU."""
        self._enter_world()
        with deferred() if self._spec.allow_missing else nullcontext():
            self._network = make_network(self._spec)
        parameters = self._network.get_parameters()
        self._initial = InitialValues(parameters, self._spec.allow_missing)
        self._model = mindspore.Model(self._network)
        if self._evaluates:
            self._evaluation, self._data = Evaluation(self._spec), make_data(self._spec)
            count = count_batches(self._data, self._spec.batch_size)
            self._batches = Batches(iter(()), count)  # none to predict here
        else:
            self._first, self._batches = make_batches(self._spec, self._network)

    def wanted_parameters(self) -> Mapping[str, WantedParameter]:
        """Return every parameter of the network, whole."""
        return {
            parameter.name: WantedParameter(
                layout=Layout((self._spec.rank_size,), ((),) * parameter.ndim),
                full_shape=tuple(parameter.shape),
                dtype=str(parameter.dtype),
            )
            for parameter in self._network.get_parameters()
        }

    def load(self, slices: Mapping[str, np.ndarray]) -> None:
        """Put each parameter on the memory of its array, without a copy."""
        for parameter in self._network.get_parameters():
            array = slices.get(parameter.name)
            if array is None:
                array = self._initial.take_whole(parameter.name)
            parameter.set_data(to_tensor(array, str(parameter.dtype)))

    def compile(self) -> None:
        """Compile for the first batch; batches of its shape reuse that."""
        if self._evaluation is None:
            self._network.compile(*as_arguments(self._first))

    def batches(self) -> Iterator[tuple[Any, ...]]:
        """Yield the inputs of each prediction, in the order of the user's data."""
        return self._batches

    def predict(self, batch: tuple[Any, ...]) -> tuple[np.ndarray, ...]:
        """Return the outputs of the network."""
        return to_arrays(predicted(self._model, batch))

    def evaluate(self, deliver: Deliver) -> Mapping[str, Any]:
        """Return what ``Model.eval`` does."""
        assert self._evaluation is not None  # open() made it
        return self._evaluation.run(self._network, self._data, deliver)

    def waiting_for(self) -> tuple[int, str] | None:
        """Return None: there is no other rank."""
        return None

    def close(self) -> None:
        """Let go of the network and its data."""
        self._network = self._model = self._evaluation = self._data = None
        self._first, self._batches = (), iter(())

    def _enter_world(self) -> None:
        """Let the user's code ask which of the ranks that share the data this one is."""
        spec = self._spec
        if spec.device == "cpu":
            mindspore.set_context(mode=mindspore.GRAPH_MODE, device_target="CPU")
            set_world(spec.rank, spec.rank_size)
            return
        mindspore.set_context(mode=mindspore.GRAPH_MODE)
        if spec.shares_data:
            mindspore.communication.init()
            mindspore.set_auto_parallel_context(
                parallel_mode="data_parallel", device_num=spec.rank_size
            )

    @property
    def _evaluates(self) -> bool:
        return self._spec.task == "eval" and self._spec.rank_size == 1
