"""Run blocks of prepared steps in the order that the data ask for, on one rank."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from workers.spmd.graph import Block, Call, Constant, End, Fork, Jump, Operand, end_reads
from workers.spmd.operators import argument
from workers.spmd.program import Step, reads_of, writes_of

Values = dict[str, Any]  # name -> tensor: all that the rank holds at one moment
Prepare = Callable[[Step], Callable[[Values], None]]


@dataclass(frozen=True)
class _Jumped:
    """What a block comes to that asks for another round of a loop around it."""

    loop: str
    arguments: Sequence[Any]


def prepare_block(
    block: Block[Step], prepare: Prepare, own: frozenset[str] = frozenset()
) -> Callable[[Values], Any]:
    """Return a function that runs a block and returns its result, nested as its end nests it.

    The function takes values away as soon as nothing in the block needs them any more.

    Args:
        prepare: returns a function that runs one step.
        own: values that may be taken away besides those that the block makes.
    """
    steps = [prepare(step) for step in block.body]
    released = _last_uses(block, own)
    finish = _prepare_end(block.end, prepare)

    def run(values: Values) -> Any:
        for run_step, names in zip(steps, released, strict=True):
            run_step(values)
            for name in names:
                del values[name]
        return finish(values)

    return run


def prepare_call(call: Call[Step], prepare: Prepare) -> Callable[[Values], Any]:
    """Return a function that runs a block round by round and returns the result of the last."""
    names = [formal.name for formal in call.formals]
    block = prepare_block(call.block, prepare, frozenset(names))

    def run(values: Values) -> Any:
        arguments: Sequence[Any] = [_fetched(operand, values) for operand in call.initial]
        while True:
            result = block(values | dict(zip(names, arguments, strict=True)))
            if not isinstance(result, _Jumped) or result.loop != call.loop:
                return result
            arguments = result.arguments

    return run


def _prepare_end(end: End[Step], prepare: Prepare) -> Callable[[Values], Any]:
    if isinstance(end, Jump):
        jump = end
        return lambda values: _Jumped(jump.loop, [_fetched(x, values) for x in jump.arguments])
    if isinstance(end, Fork):
        index, blocks = end.index, [prepare_block(block, prepare) for block in end.blocks]
        return lambda values: blocks[_number(index, values)](dict(values))
    if isinstance(end, Call):
        return prepare_call(end, prepare)
    operand = end
    return lambda values: _fetched(operand, values)


def _number(index: Operand, values: Values) -> int:
    found = _fetched(index, values)
    return int(found.asnumpy() if hasattr(found, "asnumpy") else found)


def _fetched(operand: Operand, values: Values) -> Any:
    if isinstance(operand, tuple):
        return tuple(_fetched(item, values) for item in operand)
    return argument(operand) if isinstance(operand, Constant) else values[operand.name]


def _last_uses(block: Block[Step], own: frozenset[str]) -> list[list[str]]:
    """Return for each step the block's own values that nothing needs after it."""
    own = own | {value.name for step in block.body for value in writes_of(step)}
    needed = {value.name for value in end_reads(block.end, reads_of)}
    released: list[list[str]] = []
    for step in reversed(block.body):
        names = dict.fromkeys(value.name for value in (*reads_of(step), *writes_of(step)))
        released.append([name for name in names if name in own and name not in needed])
        needed.update(names)
    return released[::-1]
