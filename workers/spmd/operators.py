"""Run single operators with MindSpore's CPU kernels, as the captured graph describes them."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import mindspore
import numpy as np
from mindspore.ops import Primitive

from workers.errors import InputError
from workers.spmd.compositions import composition_of
from workers.spmd.graph import Constant, Node, Operand, Value
from workers.spmd.simplify import STRATEGIES
from workers.spmd.views import view
from workers.tensors import to_tensor

_PLANNING = STRATEGIES | {"alias_name"}
_HALVES = {"Float16", "BFloat16"}

Kernel = Callable[..., tuple[Any, ...]]  # tensors of the node's values -> its outputs


class OperatorError(InputError):
    """An operator has no kernel on a CPU, or its kernel refuses what it is given."""

    def __init__(self, operator: str, reason: str) -> None:
        super().__init__(operator, reason)
        self.operator, self.reason = operator, reason

    def __str__(self) -> str:
        return f"{self.operator} cannot run on a simulated rank: {self.reason}"


def kernel(node: Node) -> Kernel:
    """Return a function that runs a node; it takes the tensors of ``values_of(node.inputs)``.

    Half floats that a CPU kernel does not take are computed in float32 and cast back.
    """
    if node.op == "Identity":
        constant = argument(node.inputs[0])
        return lambda: (constant,)
    template = tuple(_template(operand) for operand in node.inputs)
    composed = composition_of(node)
    attempts = [_widened(composed, node)] if composed else [view(node.op) or _primitive(node)]
    if node.op.startswith("Inplace"):
        attempts = [_on_a_copy(attempts[0])]
    if not composed and _has_halves(node):
        attempts.append(_widened(attempts[0], node))

    def run(*tensors: Any) -> tuple[Any, ...]:
        source = iter(tensors)
        arguments = tuple(fill(source) for fill in template)
        while True:
            try:
                return attempts[0](*arguments)
            except (RuntimeError, TypeError, ValueError) as error:
                if len(attempts) == 1:
                    raise OperatorError(str(node), _first_lines(error)) from error
                attempts.pop(0)  # for every later batch, too

    return run


def _primitive(node: Node) -> Kernel:
    """Return MindSpore's own kernel for a CPU."""
    primitive = Primitive(node.op)
    for name, value in node.attributes.items():
        if name not in _PLANNING:
            primitive.add_prim_attr(name, value)

    def run(*arguments: Any) -> tuple[Any, ...]:
        result = primitive(*arguments)
        return tuple(result) if node.returns_tuple else (result,)

    return run


def _on_a_copy(run: Kernel) -> Kernel:
    """Return a kernel that leaves its first argument as it is: others may need it, or be it."""
    return lambda target, *rest: run(target.copy(), *rest)


def _widened(run: Kernel, node: Node) -> Kernel:
    """Return a kernel that computes half floats in float32."""
    dtypes = [getattr(mindspore, value.dtype.lower()) for value in node.outputs]

    def wide(argument: Any) -> Any:
        if isinstance(argument, tuple):
            return tuple(map(wide, argument))
        if isinstance(argument, mindspore.Tensor) and str(argument.dtype) in _HALVES:
            return argument.astype(mindspore.float32)
        return argument

    def run_wide(*arguments: Any) -> tuple[Any, ...]:
        results = run(*map(wide, arguments))
        pairs = zip(results, dtypes, strict=True)
        return tuple(x if x.dtype == dtype else x.astype(dtype) for x, dtype in pairs)

    return run_wide


def _has_halves(node: Node) -> bool:
    tensors = (*node.tensors, *node.outputs)
    return any(tensor.dtype in _HALVES for tensor in tensors)


def look_up(first_row: int, rows: int, fixed: np.ndarray | None = None) -> Kernel:
    """Return a Gather on rows ``first_row`` and following of a table; other indices give zeros.

    Args:
        fixed: the indices, when the network holds them as a constant.
    """

    def run(table: Any, *indices: Any) -> tuple[Any, ...]:
        local = (indices[0].asnumpy() if fixed is None else fixed) - first_row
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
    constant = argument(operand)
    return lambda source: constant


def argument(operand: Operand) -> Any:
    """Return a constant as an operator takes it."""
    assert isinstance(operand, Constant)
    if isinstance(operand.value, np.ndarray):
        return to_tensor(operand.value, operand.dtype)
    return operand.value


def _first_lines(error: Exception) -> str:
    """MindSpore's messages end in pages about its own call stack."""
    text = str(error).split("\n\n----")[0].strip().strip("-").strip()
    return text or type(error).__name__
