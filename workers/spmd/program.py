"""Hold the parallel program: what every rank computes and exchanges, as data to print and test.

A program is the same on all ranks of a pipeline stage; layouts say which part of each tensor is
a rank's own.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field, replace
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

    def on(self, *stages: int) -> Placed:
        """Return the same on the ranks of other pipeline stages."""
        return replace(self, layout=replace(self.layout, stages=stages))


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


@dataclass(frozen=True, eq=False)
class Send:
    """Give what this rank holds to the ranks that have its place in other pipeline stages."""

    source: Placed
    stages: tuple[int, ...]  # that receive it
    after: Node | None  # as of Redistribute

    def group(self, rank: int) -> tuple[int, ...]:
        """Return the ranks that meet where ``rank`` sends or receives; the first one sends."""
        size = self.source.layout.stage_size
        senders = self.source.layout.stages
        return tuple(stage * size + rank % size for stage in (*senders, *self.stages))


@dataclass(frozen=True, eq=False)
class Receive:
    """Take what another pipeline stage sends."""

    send: Send
    target: Placed


Step = Union[Compute, Redistribute, Reduce, Invoke, Send, Receive]


@dataclass(frozen=True, eq=False)
class Operator:
    """What an operator of the network came to, for reports."""

    node: Node
    division: Division
    known: bool = True  # False: no rule, so it runs whole on every rank


@dataclass(frozen=True, eq=False)
class Program:
    """One prediction on ``devices`` ranks: all of the job, or those of a pipeline stage."""

    devices: int
    parameters: Mapping[str, Placed]
    inputs: tuple[Placed, ...]  # each rank takes its part of a batch, most often all of it
    steps: tuple[Step, ...]
    outputs: Operand  # of the network's own nesting; every value in it is whole
    operators: tuple[Operator, ...] = field(default=())
    sent: tuple[Placed, ...] = ()  # what later stages need of it, as it lies
    stage: int = 0

    @property
    def ranks(self) -> range:
        """The global ranks that run it."""
        return range(self.stage * self.devices, (self.stage + 1) * self.devices)

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
    elif not isinstance(step, Receive):
        yield step.source.value


def writes_of(step: Step) -> tuple[Value, ...]:
    """Return the values that a step makes."""
    if isinstance(step, Compute):
        return step.node.outputs
    if isinstance(step, Send):
        return ()
    return step.outputs if isinstance(step, Invoke) else (step.target.value,)


def maker_of(step: Step) -> Node | None:
    """Return the operator that made what a step yields; None for control flow, and for inputs."""
    if isinstance(step, Compute):
        return step.node
    if isinstance(step, Receive):
        return step.send.after
    return None if isinstance(step, Invoke) else step.after


def _flat(steps: Iterable[Step]) -> Iterator[Step]:
    for step in steps:
        yield step
        if isinstance(step, Invoke):
            yield from _behind(step.call)


def _behind(end: End[Step]) -> Iterator[Step]:
    for block in blocks_of(end):
        yield from _flat(block.body)
        yield from _behind(block.end)
