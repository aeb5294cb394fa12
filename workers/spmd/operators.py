"""Run single operators with MindSpore's CPU kernels, as the captured graph describes them."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
from mindspore.ops import Primitive

from workers.errors import InputError
from workers.spmd.graph import Constant, Node, Operand, Value
from workers.tensors import to_tensor

_PLANNING = {"in_strategy", "out_strategy", "in_layout", "out_layout", "alias_name"}

Kernel = Callable[..., tuple[Any, ...]]  # tensors of the node's values -> its outputs


class OperatorError(InputError):
    """An operator has no kernel on a CPU, or its kernel refuses what it is given."""

    def __init__(self, operator: str, reason: str) -> None:
        super().__init__(operator, reason)
        self.operator, self.reason = operator, reason

    def __str__(self) -> str:
        return f"{self.operator} cannot run on a simulated rank: {self.reason}"


def kernel(node: Node) -> Kernel:
    """Return a function that runs a node; it takes the tensors of ``values_of(node.inputs)``."""
    if node.op == "Identity":
        constant = _argument(node.inputs[0])
        return lambda: (constant,)
    primitive = Primitive(node.op)
    for name, value in node.attributes.items():
        if name not in _PLANNING:
            primitive.add_prim_attr(name, value)
    template = tuple(_template(operand) for operand in node.inputs)

    def run(*tensors: Any) -> tuple[Any, ...]:
        source = iter(tensors)
        try:
            result = primitive(*(fill(source) for fill in template))
        except (RuntimeError, TypeError, ValueError) as error:
            raise OperatorError(str(node), _first_lines(error)) from error
        return tuple(result) if node.returns_tuple else (result,)

    return run


def look_up(first_row: int, rows: int) -> Kernel:
    """Return a Gather on rows ``first_row`` and following of a table; other indices give zeros."""

    def run(table: Any, indices: Any) -> tuple[Any, ...]:
        local = indices.asnumpy() - first_row
        here = (local >= 0) & (local < rows)
        found = table.asnumpy()[np.where(here, local, 0)]
        found[~here] = 0
        return (to_tensor(found),)

    return run


def _template(operand: Operand) -> Callable[[Any], Any]:
    """Return how to fill one argument from the iterator of the node's tensors."""
    if isinstance(operand, tuple):
        parts = [_template(item) for item in operand]
        return lambda source: tuple(part(source) for part in parts)
    if isinstance(operand, Value):
        return lambda source: next(source)
    constant = _argument(operand)
    return lambda source: constant


def _argument(operand: Operand) -> Any:
    assert isinstance(operand, Constant)
    if isinstance(operand.value, np.ndarray):
        return to_tensor(operand.value, operand.dtype)
    return operand.value


def _first_lines(error: Exception) -> str:
    """MindSpore's messages end in pages about its own call stack."""
    text = str(error).split("\n\n----")[0].strip().strip("-").strip()
    return text or type(error).__name__
