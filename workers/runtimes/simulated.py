"""Run one rank of a device job on a CPU: the same network, slices and collectives, no device.

MindSpore builds the network under the same parallel context as on a device, then refuses to
compile it for a CPU; from there on ``workers.spmd`` executes the parallel program itself.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from operator import length_hint
from typing import Any

import mindspore
import numpy as np
from mindspore.communication import management

from workers.nested import kind_of, tensors_in
from workers.resharding.layout import Layout
from workers.runtimes.runtime import WantedParameter
from workers.runtimes.user_code import Batches, make_batches, make_network
from workers.spec import WorkerSpec
from workers.spmd.capture import capture, set_parallel_context
from workers.spmd.execute import RankProgram
from workers.spmd.fingerprint import fingerprint, require_same
from workers.spmd.graph import Graph
from workers.spmd.initial import InitialValues
from workers.spmd.pipeline import divide_network
from workers.spmd.program import Program
from workers.spmd.transport import Transport, connect


class SimulatedRuntime:
    """The ``Runtime`` of a simulated rank."""

    def __init__(self, spec: WorkerSpec) -> None:
        self._spec = spec
        self._network: Any = None
        self._batches: Iterator[tuple[Any, ...]] = iter(())
        self._first: tuple[Any, ...] = ()
        self._graph: Graph | None = None  # of the first batch
        self._programs: tuple[Program, ...] = ()  # made of it: they decide where slices lie
        self._initial = InitialValues()
        self._slices: Mapping[str, np.ndarray] = {}
        self._prepared: dict[str, RankProgram] = {}  # by the kind of the batch
        self._transport: Transport | None = None

    def open(self) -> None:
        """Set the parallel context; under it, build the network and its first input."""
        mindspore.runtime.dispatch_threads_num(self._spec.threads)
        # A script for devices calls this; here the ranks meet in compile().
        mindspore.communication.init = management.init = _nothing_to_do
        self._network = self._build()
        self._first, self._batches = make_batches(self._spec, self._network)

    def divide(self) -> tuple[Program, ...]:
        """Compile the network and divide it; afterwards only the programs are left of it.

        Returns:
            the program of each pipeline stage.
        """
        self._initial = InitialValues(self._network.get_parameters(), self._spec.allow_missing)
        self._graph = capture(self._network, self._first)
        self._programs = self._divided(self._graph, {})
        self._network = None
        return self._programs

    def wanted_parameters(self) -> Mapping[str, WantedParameter]:
        """Return where the program wants each parameter of this rank's stage."""
        return {
            name: WantedParameter(placed.layout, placed.value.shape, placed.value.dtype)
            for name, placed in self._own(self.divide()).parameters.items()
        }

    def load(self, slices: Mapping[str, np.ndarray]) -> None:
        """Take this rank's slices; those that are not given are cut from initial values."""
        missing = {
            name: self._initial.take(name, placed, self._spec.rank)
            for name, placed in self._own(self._programs).parameters.items()
            if name not in slices
        }
        self._slices = {**slices, **missing}

    def compile(self) -> None:
        """Meet the other ranks and prepare this rank's steps for batches like the first."""
        assert self._graph is not None  # divide() came before
        spec = self._spec
        if spec.rank_size > 1:
            self._transport = connect(spec)
        self._prepared[kind_of(self._first)] = self._prepare(self._graph, self._programs)
        self._graph = None

    def batches(self) -> Iterator[tuple[Any, ...]]:
        """Yield the inputs of each prediction, in the order of the user's data."""
        return Batches(self._batches_to_the_end(), length_hint(self._batches))

    def _batches_to_the_end(self) -> Iterator[tuple[Any, ...]]:
        yield from self._batches
        if self._transport is not None:
            self._transport.close()
            self._transport = None

    def predict(self, batch: tuple[Any, ...]) -> tuple[np.ndarray, ...]:
        """Run the program on one batch. Blocks until the other ranks do.

        A batch of other shapes, a shorter last one say, gets a program of its own.
        """
        kind = kind_of(batch)
        if kind not in self._prepared:
            at_rest = {
                name: placed.layout
                for program in self._programs
                for name, placed in program.parameters.items()
            }
            graph = capture(self._build(), batch)
            self._prepared[kind] = self._prepare(graph, self._divided(graph, at_rest))
        return self._prepared[kind].run(tensors_in(batch))

    def waiting_for(self) -> tuple[int, str] | None:
        """Return the rank that this one waits for at this moment, and in which collective."""
        return self._transport.waiting_for if self._transport is not None else None

    def close(self) -> None:
        """Let go of the slices. On other ranks that still predict, the process's end hangs up."""
        self._prepared.clear()
        self._slices = {}

    def _build(self) -> mindspore.nn.Cell:
        spec = self._spec
        stages = spec.device_options.pipeline_stages
        set_parallel_context(spec.rank, spec.rank_size, spec.strategy, stages)
        return make_network(spec)

    def _divided(self, graph: Graph, at_rest: Mapping[str, Layout]) -> tuple[Program, ...]:
        options = self._spec.device_options
        return divide_network(
            graph,
            self._spec.rank_size,
            options.pipeline_stages,
            at_rest,
            options.dataset_strategy,
        )

    def _own(self, programs: Sequence[Program]) -> Program:
        return next(program for program in programs if self._spec.rank in program.ranks)

    def _prepare(self, graph: Graph, programs: Sequence[Program]) -> RankProgram:
        program = self._own(programs)
        if self._transport is not None:
            own = fingerprint(graph, self._initial.checksums)
            require_same(self._transport, own, program.ranks)
        # Dispatching asynchronously takes threads that spin, and ranks outnumber the cores.
        mindspore.set_context(mode=mindspore.PYNATIVE_MODE, pynative_synchronize=True)
        prepared = RankProgram(program, self._spec.rank, self._transport)
        prepared.load(self._slices)
        return prepared


def _nothing_to_do(*_: Any, **__: Any) -> None:
    """Stand in for ``mindspore.communication.init``."""
