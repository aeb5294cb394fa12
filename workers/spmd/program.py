"""Hold the parallel program: what every rank computes and exchanges, as data to print and test.

A program is the same on all ranks; layouts say which part of each tensor is a rank's own.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Union

from workers.resharding.layout import Layout
from workers.spmd.division import Division
from workers.spmd.graph import Call, End, Node, Operand, Value, blocks_of, end_reads, values_of


@dataclass(frozen=True)
class Placed:
    """A tensor of the whole network and how the ranks divide it."""

    value: Value  # its name and its full shape
    layout: Layout

    @property
    def local(self) -> Value:
        """The part that one rank holds: same name, the slice's shape."""
        shape = self.layout.slice_shape(self.value.shape)
        return Value(self.value.name, shape, self.value.dtype)


@dataclass(frozen=True, eq=False)
class Compute:
    """Run an operator on what this rank holds."""

    node: Node  # the operator on local tensors: its operands name them, its shapes are slices'
    looked_up: Placed | None = None  # a table split by rows: indices count from its first row here


@dataclass(frozen=True)
class Redistribute:
    """Bring a tensor from one layout into another: a copy, or a collective."""

    source: Placed
    target: Placed
    after: Node | None  # the operator that made the tensor; None for inputs and parameters


@dataclass(frozen=True)
class Reduce:
    """Combine the partial results of ranks that differ on some axes of the device matrix."""

    source: Placed  # every rank of a group holds a partial result of this slice
    target: Placed  # the whole slice (AllReduce), or each rank's part of it (ReduceScatter)
    axes: tuple[int, ...]  # of the layout's device matrix
    how: str  # "sum", "mean", "max" or "min"
    after: Node  # whose results are partial

    @property
    def kind(self) -> str:
        """MindSpore's name of the collective."""
        return "AllReduce" if self.source.layout == self.target.layout else "ReduceScatter"


@dataclass(frozen=True, eq=False)
class Invoke:
    """Run the blocks that control flow picks; what goes into a round and out is whole."""

    call: Call[Step]
    outputs: tuple[Value, ...]


Step = Union[Compute, Redistribute, Reduce, Invoke]


@dataclass(frozen=True, eq=False)
class Operator:
    """What an operator of the network came to, for reports."""

    node: Node
    division: Division
    known: bool = True  # False: no rule, so it runs whole on every rank


@dataclass(frozen=True, eq=False)
class Program:
    """One prediction on ``devices`` ranks."""

    devices: int
    parameters: Mapping[str, Placed]
    inputs: tuple[Value, ...]  # whole on every rank
    steps: tuple[Step, ...]
    outputs: Operand  # of the network's own nesting; every value in it is whole
    operators: tuple[Operator, ...] = field(default=())

    @property
    def every_step(self) -> tuple[Step, ...]:
        """The steps and those of the blocks that they run, in the order of the source."""
        return tuple(_flat(self.steps))


def whole_layout(devices: int, dims: int) -> Layout:
    """Return the layout of a tensor that every device holds whole."""
    return Layout((devices,), ((),) * dims)


def reads_of(step: Step) -> Iterator[Value]:
    """Yield the values that a step uses, also inside the blocks that it runs."""
    if isinstance(step, Compute):
        yield from values_of(step.node.inputs)
    elif isinstance(step, Invoke):
        yield from end_reads(step.call, reads_of)
    else:
        yield step.source.value


def writes_of(step: Step) -> tuple[Value, ...]:
    """Return the values that a step makes."""
    if isinstance(step, Compute):
        return step.node.outputs
    return step.outputs if isinstance(step, Invoke) else (step.target.value,)


def _flat(steps: Iterable[Step]) -> Iterator[Step]:
    for step in steps:
        yield step
        if isinstance(step, Invoke):
            yield from _behind(step.call)


def _behind(end: End[Step]) -> Iterator[Step]:
    for block in blocks_of(end):
        yield from _flat(block.body)
        yield from _behind(block.end)
