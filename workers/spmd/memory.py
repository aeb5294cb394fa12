"""Tell what a program's activations take of a rank's memory. Pure: nothing is run."""

from __future__ import annotations

import math

from workers.resharding.dtypes import STORAGE
from workers.spmd.graph import Value, values_of
from workers.spmd.program import Program, Receive, Redistribute, Reduce, reads_of, writes_of


def activation_bytes(program: Program) -> int:
    """Return the most bytes of tensors that a rank holds at once, beyond its parameters."""
    steps = program.every_step
    last_use = {value.name: len(steps) for value in values_of(program.outputs)}
    for index in reversed(range(len(steps))):
        for value in reads_of(steps[index]):
            last_use.setdefault(value.name, index)
    held = {placed.value.name: _nbytes(placed.local) for placed in program.inputs}
    most = sum(held.values())
    for index, step in enumerate(steps):
        if isinstance(step, (Redistribute, Reduce, Receive)):
            made: tuple[Value, ...] = (step.target.local,)
        else:
            made = writes_of(step)
        held |= {value.name: _nbytes(value) for value in made}
        most = max(most, sum(held.values()))
        held = {name: size for name, size in held.items() if last_use.get(name, -1) > index}
    return most


def _nbytes(value: Value) -> int:
    return math.prod(value.shape) * STORAGE[value.dtype].itemsize
