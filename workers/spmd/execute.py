"""Run one rank's part of a parallel program: prepared once, then reused for every batch."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Any

import numpy as np

from workers.resharding.dtypes import STORAGE
from workers.spmd import collectives
from workers.spmd.blocks import Values, prepare_block, prepare_call
from workers.spmd.graph import Block, Constant, values_of
from workers.spmd.operators import kernel, look_up
from workers.spmd.program import (
    Compute,
    Invoke,
    Placed,
    Program,
    Receive,
    Redistribute,
    Reduce,
    Send,
    Step,
)
from workers.spmd.redistribution import plan_redistribution, reduction_groups, scatter
from workers.spmd.transport import Transport
from workers.tensors import to_arrays, to_tensor


class RankProgram:
    """The steps of one rank."""

    def __init__(self, program: Program, rank: int, transport: Transport | None) -> None:
        """Prepare every step. ``transport`` may be None when there is one rank."""
        self._program, self._rank, self._transport = program, rank, transport
        self._parameters: Values = {}
        inputs = frozenset(placed.value.name for placed in program.inputs)
        whole = Block(program.steps, program.outputs)
        self._run = prepare_block(whole, self._prepare, inputs)

    def load(self, slices: Mapping[str, np.ndarray]) -> None:
        """Take this rank's slice of every parameter, without a copy."""
        self._parameters = {
            name: to_tensor(slices[name], placed.value.dtype)
            for name, placed in self._program.parameters.items()
        }

    def run(self, inputs: Sequence[Any]) -> tuple[np.ndarray, ...]:
        """Predict one batch, given whole. Blocks until the other ranks run it too."""
        values: Values = dict(self._parameters)
        for placed, tensor in zip(self._program.inputs, inputs, strict=True):
            values[placed.value.name] = self._own_part(placed, tensor)
        return to_arrays(self._run(values))

    def _own_part(self, placed: Placed, tensor: Any) -> Any:
        """Return what this rank is fed of an input."""
        shape = placed.value.shape
        if placed.local.shape == shape:
            return tensor
        part = tensor.asnumpy()[placed.layout.region(self._rank, shape).as_slices()]
        return to_tensor(np.ascontiguousarray(part), placed.value.dtype)

    def _prepare(self, step: Step) -> Callable[[Values], None]:
        if isinstance(step, Compute):
            return self.prepare_compute(step, self._rank)
        if isinstance(step, Redistribute):
            return self._prepare_redistribution(step)
        if isinstance(step, Invoke):
            return self._prepare_call(step)
        if isinstance(step, Send):
            return self._prepare_send(step)
        if isinstance(step, Receive):
            return self._prepare_receive(step)
        return self._prepare_reduction(step)

    @staticmethod
    def prepare_compute(step: Compute, rank: int) -> Callable[[Values], None]:
        """Return a function that runs one operator on what ``rank`` holds."""
        names = [value.name for value in values_of(step.node.inputs)]
        outputs = [value.name for value in step.node.outputs]
        if step.looked_up is not None:
            table = step.looked_up
            region = table.layout.region(rank, table.value.shape)
            indices = step.node.inputs[1]
            fixed = indices.value if isinstance(indices, Constant) else None
            run = look_up(region.start[0], region.shape[0], fixed)
        else:
            run = kernel(step.node)

        def compute(values: Values) -> None:
            values.update(zip(outputs, run(*[values[name] for name in names]), strict=True))

        return compute

    def _prepare_call(self, step: Invoke) -> Callable[[Values], None]:
        run = prepare_call(step.call, self._prepare)

        def invoke(values: Values) -> None:
            result = run(values)
            results = result if isinstance(result, tuple) else (result,)
            values.update(zip([v.name for v in step.outputs], results, strict=True))

        return invoke

    def _prepare_redistribution(self, step: Redistribute) -> Callable[[Values], None]:
        source, target, shape = step.source, step.target, step.source.value.shape
        transfer = plan_redistribution(source.layout, target.layout, shape)[self._rank]
        local_shape = target.local.shape
        move: Callable[[np.ndarray, np.ndarray], None]
        if len(transfer.group) == 1:
            move = partial(_copy_own, transfer.copies)
        else:
            assert self._transport is not None  # more than one rank has a transport
            origin = step.after or source.value.name
            call = f"{transfer.kind} after {origin} of {source.value.dtype}{list(shape)}"
            itemsize = STORAGE[source.value.dtype].itemsize
            held = source.local.shape
            move = collectives.Exchange(self._transport, transfer, held, itemsize, call)

        def redistribute(values: Values) -> None:
            array = values[source.value.name].asnumpy()
            out = np.empty(local_shape, array.dtype)
            move(array, out)
            values[target.value.name] = to_tensor(out)

        return redistribute

    def _prepare_send(self, step: Send) -> Callable[[Values], None]:
        name, pass_on = step.source.value.name, self._passing_on(step)
        return lambda values: pass_on(values[name].asnumpy())

    def _prepare_receive(self, step: Receive) -> Callable[[Values], None]:
        target, pass_on = step.target, self._passing_on(step.send)
        shape, dtype = target.local.shape, target.value.dtype

        def receive(values: Values) -> None:
            out = np.empty(shape, STORAGE[dtype])
            pass_on(out)
            values[target.value.name] = to_tensor(out, dtype)

        return receive

    def _passing_on(self, send: Send) -> Callable[[np.ndarray], None]:
        value = send.source.value
        origin = send.after or value.name
        call = f"Send after {origin} of {value.dtype}{list(value.shape)}"
        assert self._transport is not None  # stages have ranks of their own
        return partial(collectives.pass_on, self._transport, send.group(self._rank), call=call)

    def _prepare_reduction(self, step: Reduce) -> Callable[[Values], None]:
        group = reduction_groups(step.source.layout, step.axes)[self._rank]
        value = step.source.value
        call = f"{step.kind} ({step.how}) after {step.after} of {value.dtype}{list(value.shape)}"
        transport = self._transport
        assert transport is not None  # a split axis has more than one rank
        reduce: Callable[[np.ndarray], np.ndarray]
        if step.kind == "AllReduce":
            reduce = partial(_all_reduce_in_place, transport, group, step.how, call)
        else:
            scattering = scatter(step.source.layout, step.target.layout, value.shape, group)
            itemsize = STORAGE[value.dtype].itemsize
            reduce = collectives.ReduceScatter(
                transport, scattering, step.source.local.shape, itemsize, step.how, call
            )

        def run(values: Values) -> None:
            partial_result = values[value.name]  # nobody else needs it: memory for the result
            array = partial_result.asnumpy()
            total = reduce(array)
            values[step.target.value.name] = partial_result if total is array else to_tensor(total)

        return run


def _all_reduce_in_place(
    transport: Transport, group: tuple[int, ...], how: str, call: str, array: np.ndarray
) -> np.ndarray:
    return collectives.all_reduce(transport, group, array, how, call, out=array)


def _copy_own(copies: Any, array: np.ndarray, out: np.ndarray) -> None:
    for copy in copies:
        np.copyto(out[copy.target.as_slices()], array[copy.source.as_slices()])
