"""Hold a network as operators and the values between them; what they compute is decided elsewhere.

Control flow that depends on data is a node too: it calls blocks of operators.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field, replace
from typing import Any, Generic, TypeVar, Union

import numpy as np

INPUT = "input:"  # begins the names of inputs


@dataclass(frozen=True)
class Value:
    """A tensor that flows through the graph."""

    name: str  # unique in its graph
    shape: tuple[int, ...]
    dtype: str  # MindSpore's name: "Float32"

    @property
    def users_name(self) -> str:
        """The name that the user gave it: a graph tells inputs from parameters by a prefix."""
        return self.name.removeprefix(INPUT)


@dataclass(frozen=True, eq=False)
class Constant:
    """An operand that is known now: a number, a string, a tuple of these, None or an array."""

    value: Any
    dtype: str = ""  # of an array, MindSpore's name; a BFloat16 array holds uint16


Operand = Union[Value, Constant, tuple["Operand", ...]]

T = TypeVar("T")  # what a block is made of: nodes of a graph, or steps of a program


@dataclass(frozen=True, eq=False)
class Block(Generic[T]):
    """What runs only if, or as often as, the data say. It may use any value from around it."""

    body: tuple[T, ...]
    end: End[T]


@dataclass(frozen=True, eq=False)
class Jump:
    """Run a loop around here once more."""

    loop: str
    arguments: tuple[Operand, ...]  # of its formals


@dataclass(frozen=True, eq=False)
class Fork(Generic[T]):
    """Go on with one of some blocks."""

    index: Operand  # of the block; of two, the second is that of a condition that holds
    blocks: tuple[Block[T], ...]


@dataclass(frozen=True, eq=False)
class Call(Generic[T]):
    """Run a block; again for each jump to it."""

    loop: str  # "" when nothing jumps here
    formals: tuple[Value, ...]  # what each round may have different
    initial: tuple[Operand, ...]  # in the first round
    block: Block[T]


End = Union[Operand, Jump, Fork[T], Call[T]]  # a result, or where it comes from


@dataclass(frozen=True, eq=False)
class Node:
    """One operator."""

    op: str  # "MatMul"
    scope: str  # where in the network: "fc1-Dense/MatMul-op0"
    inputs: tuple[Operand, ...]
    outputs: tuple[Value, ...]
    attributes: dict[str, Any] = field(default_factory=dict)
    returns_tuple: bool = False  # also when the tuple has a single tensor
    instance: str = ""  # the attribute that it is in its cell: "matmul"
    source: str = ""  # where the user calls it: "network.py:12"
    stage: int = -1  # of the pipeline, as cells say; -1: none says one
    call: Call[Node] | None = None  # of control flow: it has neither inputs nor attributes

    @property
    def tensors(self) -> tuple[Value | Constant, ...]:
        """The operands that are tensors, tuples of them laid flat: what a strategy counts."""
        return tuple(x for x in flatten(self.inputs) if is_tensor(x))

    @property
    def sized_by_data(self) -> bool:
        """Tell whether some shape, as of what a mask selects, is known when it runs only."""
        return any(size < 0 for x in (*self.tensors, *self.outputs) for size in shape_of(x))

    def argument(self, index: int, default: Any = None) -> Any:
        """Return the value of a constant operand; ``default`` where there is none."""
        operand = self.inputs[index] if index < len(self.inputs) else None
        return operand.value if isinstance(operand, Constant) else default

    def __str__(self) -> str:
        where = ", ".join(filter(None, (self.scope, self.source)))
        return f"{self.op} ({where})" if where else self.op


@dataclass(frozen=True, eq=False)
class Graph:
    """A network, ready to be divided."""

    nodes: tuple[Node, ...]  # in an order in which they can run
    parameters: dict[str, Value]  # by the name that checkpoints use
    inputs: tuple[Value, ...]
    outputs: Operand  # a value or constant, or a (nested) tuple of them
    sent: tuple[Value, ...] = ()  # by this stage of a pipeline to later ones


def is_tensor(operand: Operand) -> bool:
    """Tell tensors, constant ones included, from numbers, strings and None."""
    if isinstance(operand, Constant):
        return isinstance(operand.value, np.ndarray)
    return isinstance(operand, Value)


def shape_of(operand: Value | Constant) -> tuple[int, ...]:
    """Return the shape of a tensor operand."""
    return operand.shape if isinstance(operand, Value) else tuple(operand.value.shape)


def flatten(operand: Operand) -> Iterator[Value | Constant]:
    """Yield the leaves of a nested tuple of operands, in order."""
    if isinstance(operand, tuple):
        for item in operand:
            yield from flatten(item)
    else:
        yield operand


def values_of(operand: Operand) -> Iterator[Value]:
    """Yield the values in a nested operand."""
    return (x for x in flatten(operand) if isinstance(x, Value))


def blocks_of(end: End[T]) -> tuple[Block[T], ...]:
    """Return the blocks that are directly behind the end of a block, or behind a call."""
    if isinstance(end, Fork):
        return end.blocks
    return (end.block,) if isinstance(end, Call) else ()


def operands_of(end: End[T]) -> tuple[Operand, ...]:
    """Return what the end of a block, or a call, uses itself."""
    if isinstance(end, Jump):
        return end.arguments
    if isinstance(end, Fork):
        return (end.index,)
    return end.initial if isinstance(end, Call) else (end,)


def every_node(nodes: Iterable[Node]) -> Iterator[Node]:
    """Yield nodes and those of the blocks that they call."""
    for node in nodes:
        yield node
        if node.call is not None:
            yield from _inside(node.call)


def _inside(end: End[Node]) -> Iterator[Node]:
    for block in blocks_of(end):
        yield from every_node(block.body)
        yield from _inside(block.end)


def reads_of(node: Node) -> Iterator[Value]:
    """Yield the values that a node uses, also inside the blocks that it calls."""
    yield from values_of(node.inputs)
    if node.call is not None:
        yield from end_reads(node.call, reads_of)


def end_reads(end: End[T], reads: Callable[[T], Iterable[Value]]) -> Iterator[Value]:
    """Yield the values that are used from the end of a block on.

    Args:
        reads: yields what one item of a body uses.
    """
    yield from values_of(operands_of(end))
    for block in blocks_of(end):
        for item in block.body:
            yield from reads(item)
        yield from end_reads(block.end, reads)


def changed(nodes: Iterable[Node], change: Callable[[Node], Node]) -> tuple[Node, ...]:
    """Return nodes with a change made to each of them, also inside the blocks that they call."""

    def everywhere(node: Node) -> Node:
        if node.call is None:
            return change(node)
        return replace(node, call=mapped(node.call, lambda body: changed(body, change)))

    return tuple(map(everywhere, nodes))


def mapped(call: Call[T], change: Callable[[tuple[T, ...]], tuple[Any, ...]]) -> Call[Any]:
    """Return a call with the bodies of all its blocks changed."""

    def block(old: Block[T]) -> Block[Any]:
        return Block(change(old.body), end(old.end))

    def end(old: End[T]) -> End[Any]:
        if isinstance(old, Fork):
            return Fork(old.index, tuple(map(block, old.blocks)))
        return replace(old, block=block(old.block)) if isinstance(old, Call) else old

    return replace(call, block=block(call.block))
