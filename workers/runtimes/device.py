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
from workers.resharding.wanted import matches
from workers.runtimes.predict_layout import parse_predict_layout
from workers.runtimes.runtime import WantedParameter
from workers.runtimes.user_code import make_batches, make_network
from workers.spec import WorkerSpec
from workers.tensors import to_arrays, to_tensor

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
    """MindSpore left parameters of the network without data."""

    def __init__(self, rank: int, parameters: tuple[str, ...]) -> None:
        super().__init__(rank, parameters)
        self.rank, self.parameters = rank, parameters

    def __str__(self) -> str:
        return f"rank {self.rank}: MindSpore did not load {', '.join(self.parameters)}"


class DeviceRuntime:
    """The ``Runtime`` of one device. Every rank; HCCL or NCCL blocks until all ranks call."""

    def __init__(self, spec: WorkerSpec) -> None:
        self._spec = spec
        self._network: Any = None
        self._model: Any = None
        self._first: tuple[Any, ...] = ()
        self._batches: Iterator[tuple[Any, ...]] = iter(())

    def open(self) -> None:
        """Take the device, meet the other ranks, and build the network in the parallel context.

        The environment says which device that is (DEVICE_ID), who the others are
        (RANK_TABLE_FILE) and which of them this one is (RANK_ID).

        Raises:
            DeviceError: there is no such device here, or the ranks cannot reach each other.
        """
        self._take_device()
        strategy = self._spec.strategy
        mindspore.set_auto_parallel_context(
            parallel_mode="semi_auto_parallel",
            full_batch=True,
            device_num=self._spec.rank_size,
            **({"strategy_ckpt_load_file": strategy} if strategy else {}),
        )
        self._network = make_network(self._spec)
        self._model = mindspore.Model(self._network)
        self._first, self._batches = make_batches(self._spec)

    def wanted_parameters(self) -> Mapping[str, WantedParameter]:
        """Compile the parallel graph and return the layouts that MindSpore gave it."""
        layouts = self._model.infer_predict_layout(*self._first)
        parameters = {parameter.name: parameter for parameter in self._network.get_parameters()}
        group_size = mindspore.communication.get_group_size
        return {
            name: parse_predict_layout(
                entry, str(parameters[name].dtype), self._spec.rank, group_size
            )
            for name, entry in layouts.items()
            if name in parameters  # MindSpore lists the inputs of the network too
        }

    def load(self, slices: Mapping[str, np.ndarray]) -> None:
        """Load the slices as they are: they have the shapes that the compiled graph wants.

        MindSpore has given the parameters their initial slices when it compiled the graph.
        """
        dtypes = {p.name: str(p.dtype) for p in self._network.get_parameters()}
        loaded = {
            name: mindspore.Parameter(to_tensor(array, dtypes[name]), name=name)
            for name, array in slices.items()
        }
        missing, _ = mindspore.load_param_into_net(self._network, loaded, strict_load=True)
        lost = tuple(name for name in missing if not matches(name, self._spec.allow_missing))
        if lost:
            raise LoadError(self._spec.rank, lost)

    def compile(self) -> None:
        """Do nothing: ``infer_predict_layout`` has compiled the graph that ``predict`` runs."""

    def batches(self) -> Iterator[tuple[Any, ...]]:
        """Yield the inputs of each prediction, in the order of the user's data."""
        return self._batches

    def predict(self, batch: tuple[Any, ...]) -> tuple[np.ndarray, ...]:
        """Return the whole outputs of the network: MindSpore gathers them on every rank."""
        return to_arrays(self._model.predict(*batch))

    def waiting_for(self) -> tuple[int, str] | None:
        """Return None: HCCL keeps to itself whom it waits for."""
        return None

    def close(self) -> None:
        """Let go of the network and its data; the end of the process frees the device."""
        self._network = self._model = None
        self._first, self._batches = (), iter(())

    def _take_device(self) -> None:
        spec = self._spec
        target = TARGETS[spec.device]
        try:
            mindspore.set_context(mode=mindspore.GRAPH_MODE, device_target=target)
            mindspore.communication.init()
        except (RuntimeError, ValueError) as error:
            reason = str(error).strip().splitlines()[0]
            raise DeviceError(spec.rank, target, spec.device_id, spec.server_id, reason) from error
