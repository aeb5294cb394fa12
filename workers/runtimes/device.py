"""Run one rank of a job on its Ascend NPU or GPU: MindSpore's own parallel graph, as its tutorial.

Every call to MindSpore that needs a device is made here, in the order of the tutorial for
distributed inference. Layouts are read in ``predict_layout``, slices are made in
``workers.resharding``; nothing is decided here.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

import mindspore
import numpy as np

from workers.errors import InputError
from workers.runtimes.foreseen_layout import foresee, require_as_foreseen
from workers.runtimes.parallel_context import build_network
from workers.runtimes.predict_layout import parse_predict_layout
from workers.runtimes.runtime import WantedParameter
from workers.runtimes.user_code import make_batches, predicted
from workers.spec import WorkerSpec
from workers.tensors import as_arguments, to_arrays, to_tensor

TARGETS = {"ascend": "Ascend", "gpu": "GPU"}  # the job's word -> MindSpore's device_target


class DeviceError(InputError):
    """MindSpore cannot use the device of a rank, or cannot reach the other ranks through it."""

    def __init__(self, rank: int, target: str, device_id: int, server_id: str, reason: str) -> None:
        super().__init__(rank, target, device_id, server_id, reason)
        self.rank, self.target, self.reason = rank, target, reason
        self.device_id, self.server_id = device_id, server_id

    def __str__(self) -> str:
        return (
            f"rank {self.rank} cannot use {self.target} device {self.device_id} of"
            f" {self.server_id}: {self.reason}; run the same job on simulated ranks with"
            " --device cpu, or check the driver, the MindSpore package and the rank table"
        )


class LoadError(InputError):
    """The compiled graph has another shape for a parameter than the slice that was read."""

    def __init__(
        self, rank: int, parameter: str, compiled: tuple[int, ...], given: tuple[int, ...]
    ) -> None:
        super().__init__(rank, parameter, compiled, given)
        self.rank, self.parameter = rank, parameter
        self.compiled, self.given = compiled, given

    def __str__(self) -> str:
        return (
            f"rank {self.rank}: MindSpore compiled {self.parameter} with the shape"
            f" {self.compiled}, the slice of its layout has {self.given}"
        )


class DeviceRuntime:
    """The ``Runtime`` of one device. Every rank; HCCL or NCCL blocks until all ranks call.

    Ranks meet first and load then, so that HCCL never waits for files. Where a device must not
    be taken while files are read, ``load_before_init`` turns that round: slices are then read by
    a layout that was foreseen, and compared with the one that MindSpore makes.
    """

    def __init__(self, spec: WorkerSpec) -> None:
        self._spec = spec
        self._network: Any = None
        self._model: Any = None
        self._first: tuple[Any, ...] = ()
        self._batches: Iterator[tuple[Any, ...]] = iter(())
        self._early = spec.device_options.load_before_init
        self._foreseen: Mapping[str, WantedParameter] = {}
        self._read: Mapping[str, np.ndarray] = {}  # before init

    def open(self) -> None:
        """Take the device, meet the other ranks, and build the network in the parallel context.

        The environment says which device that is (DEVICE_ID), who the others are
        (RANK_TABLE_FILE) and which of them this one is (RANK_ID).

        Raises:
            DeviceError: there is no such device here, or the ranks cannot reach each other.
        """
        if not self._early:
            self._start()

    def wanted_parameters(self) -> Mapping[str, WantedParameter]:
        """Compile the parallel graph and return the layouts that MindSpore gave it."""
        if self._early:
            self._foreseen = foresee(self._spec)
            return self._foreseen
        return self._inferred()

    def load(self, slices: Mapping[str, np.ndarray]) -> None:
        """Take the slices as they are: they have the shapes that the compiled graph wants."""
        if self._early:
            self._read = slices
        else:
            self._hand_over(slices)

    def compile(self) -> None:
        """Do nothing: ``infer_predict_layout`` has compiled the graph that ``predict`` runs.

        If slices were read before init, all that needs the device is done now.
        """
        if self._early:
            self._start()
            require_as_foreseen(self._spec.rank, self._foreseen, self._inferred())
            self._hand_over(self._read)
            self._read = {}

    def batches(self) -> Iterator[tuple[Any, ...]]:
        """Yield the inputs of each prediction, in the order of the user's data."""
        return self._batches

    def predict(self, batch: tuple[Any, ...]) -> tuple[np.ndarray, ...]:
        """Return the whole outputs of the network: MindSpore gathers them on every rank."""
        return to_arrays(predicted(self._model, batch))

    def device_memory_bytes(self) -> int:
        """Return the most memory of the device that tensors of this rank have held."""
        return int(mindspore.runtime.max_memory_allocated())

    def waiting_for(self) -> tuple[int, str] | None:
        """Return None: HCCL keeps to itself whom it waits for."""
        return None

    def close(self) -> None:
        """Let go of the network and its data; the end of the process frees the device."""
        self._network = self._model = None
        self._first, self._batches, self._read = (), iter(()), {}

    def _start(self) -> None:
        self._take_device()
        self._network, cell = build_network(self._spec)
        self._model = mindspore.Model(cell)
        self._first, self._batches = make_batches(self._spec, self._network)

    def _take_device(self) -> None:
        spec, options = self._spec, self._spec.device_options
        target = TARGETS[spec.device]
        jit = {"jit_config": {"jit_level": options.jit_level}} if options.jit_level else {}
        try:
            mindspore.set_context(mode=mindspore.GRAPH_MODE, device_target=target, **jit)
            if options.max_device_memory is not None:
                mindspore.runtime.set_memory(max_size=options.max_device_memory)
            mindspore.communication.init()
        except (RuntimeError, ValueError) as error:
            reason = str(error).strip().splitlines()[0]
            raise DeviceError(spec.rank, target, spec.device_id, spec.server_id, reason) from error

    def _inferred(self) -> Mapping[str, WantedParameter]:
        layouts = self._model.infer_predict_layout(*as_arguments(self._first))
        parameters = {parameter.name: parameter for parameter in self._network.get_parameters()}
        group_size = mindspore.communication.get_group_size
        return {
            name: parse_predict_layout(
                entry, str(parameters[name].dtype), self._spec.rank, group_size
            )
            for name, entry in layouts.items()
            if name in parameters  # MindSpore lists the inputs of the network too
        }

    def _hand_over(self, slices: Mapping[str, np.ndarray]) -> None:
        """Put parameters on the memory of the slices, without the copies of load_param_into_net.

        MindSpore has given the parameters their initial slices when it compiled the graph.
        """
        for parameter in self._network.get_parameters():
            array = slices.get(parameter.name)
            if array is None:  # of another stage, or left at its initial value
                continue
            if tuple(parameter.shape) != array.shape:
                raise LoadError(
                    self._spec.rank, parameter.name, tuple(parameter.shape), array.shape
                )
            tensor = to_tensor(array, str(parameter.dtype))
            parameter.set_data(tensor, slice_shape=parameter.sliced)
            parameter.init_param = True  # or predicting would make the initial value once more
