"""Divide a graph over the devices: each operator its layouts, each tensor its way between."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping
from dataclasses import replace
from types import MappingProxyType
from typing import Any

from workers.resharding.layout import Layout
from workers.spmd.errors import ParameterConflictError
from workers.spmd.graph import Constant, Graph, Node, Operand, Value, flatten, is_tensor, shape_of
from workers.spmd.program import Compute, Operator, Placed, Program, Redistribute, Reduce, Step
from workers.spmd.reshape import through_reshape
from workers.spmd.rules import rule_of
from workers.spmd.signature import Dims, Signature
from workers.spmd.simplify import simplify
from workers.spmd.strategy import Division, divide, unknown_division


def partition(
    graph: Graph, devices: int, at_rest: Mapping[str, Layout] = MappingProxyType({})
) -> Program:
    """Return the parallel program of a network on ``devices`` ranks.

    The inputs are whole on every rank (``full_batch``) and so are the outputs.

    Args:
        at_rest: where parameters lie already; each use redistributes them as it needs. Without
            an entry here, the operators decide where a parameter lies.

    Raises:
        StrategyError: MindSpore would refuse an operator's strategy.
        ParameterConflictError: two operators want a parameter in different layouts.
    """
    return _Partition(graph, devices, at_rest).run()


def whole_layout(devices: int, dims: int) -> Layout:
    """Return the layout of a tensor that every device holds whole."""
    return Layout((devices,), ((),) * dims)


class _Partition:
    """Walks the operators in order; ``placed`` knows where each value is, step by step."""

    def __init__(self, graph: Graph, devices: int, at_rest: Mapping[str, Layout]) -> None:
        self.graph, self.devices = simplify(graph), devices
        self.steps: list[Step] = []
        self.operators: list[Operator] = []
        self.placed: dict[str, Placed] = {}  # values that some step has made, or the inputs
        self.made_by: dict[str, Node] = {}  # the operator that made a value, for reports
        self.users: dict[str, Node] = {}  # the operator that gave a parameter its layout
        self.cast: dict[str, Node] = {}  # casts of parameters, placed where they are first used
        self.parameters = {v.name: v for v in graph.parameters.values()}
        self.at_rest = at_rest
        for name, layout in at_rest.items():
            self.placed[name] = Placed(self.parameters[name], layout)
        self.copies: dict[tuple[str, Layout], Placed] = {}
        self.uses: dict[str, list[Node]] = {}
        for node in self.graph.nodes:
            for value in values_of(node.inputs):
                self.uses.setdefault(value.name, []).append(node)

    def run(self) -> Program:
        for value in self.graph.inputs:
            self.placed[value.name] = self._whole(value)
        for node in self.graph.nodes:
            self._node(node)
        outputs = self._map(self.graph.outputs, self._gathered)
        for value in self.parameters.values():  # parameters that nothing uses
            self._layout_of(value)
        return Program(
            self.devices,
            {name: self.placed[name] for name in self.parameters},
            self.graph.inputs,
            tuple(self.steps),
            outputs,
            tuple(self.operators),
        )

    def _gathered(self, output: Value | Constant) -> Operand:
        """Return an output of the network, whole on every rank."""
        if isinstance(output, Constant):
            return output
        return self._bring(output, self._whole(output).layout)

    def _node(self, node: Node) -> None:
        if node.op == "Cast" and "in_strategy" not in node.attributes:
            self._cast(node)
        elif node.op == "Reshape":
            self._reshape(node)
        elif (signature := rule_of(node)) is not None:
            self._operator(node, signature)
        else:
            self._unknown(node)

    def _operator(self, node: Node, signature: Signature) -> None:
        """Run an operator that the table knows on slices, and reduce what that leaves partial."""
        division = divide(node, signature, self.devices)
        self.operators.append(Operator(node, division))
        operands = self._operands(node, division, signature.inputs, signature.gathered)
        outputs = tuple(
            Placed(value, division.layout(dims, signature.gathered))
            for value, dims in zip(node.outputs, signature.outputs, strict=True)
        )
        local_shapes = tuple(placed.local.shape for placed in outputs)
        changes = signature.localize(node, local_shapes) if signature.localize else {}
        partial = tuple(
            axis
            for label in signature.labels
            if label in signature.contracted - signature.gathered
            for axis in division.axes.get(label, ())
        )
        looked_up = None
        if signature.looked_up is not None and division.split(signature.looked_up):
            table = node.tensors[0]
            assert isinstance(table, Value)  # a constant cannot be split by rows
            looked_up = Placed(table, division.layout(signature.inputs[0]))
        self._compute(node, operands, outputs, changes, looked_up, bool(partial))
        for placed in outputs if partial else ():
            source = Placed(_renamed(placed.value, "partial"), placed.layout)
            self.steps.append(Reduce(source, placed, partial, signature.reduction, node))

    def _unknown(self, node: Node) -> None:
        """Run an operator without a rule on whole tensors; only its parameters are divided."""
        division, labels = unknown_division(node, self.devices)
        self.operators.append(Operator(node, division, known=False))
        every = frozenset(x for dims in labels for x in dims if x is not None)
        operands = self._operands(node, division, labels, every)
        outputs = tuple(self._whole(value) for value in node.outputs)
        self._compute(node, operands, outputs)

    def _reshape(self, node: Node) -> None:
        """Reshape what each rank has, after gathering the splits that the new shape cannot keep."""
        source = node.inputs[0]
        if isinstance(source, Constant):
            operands: tuple[Operand, ...] = (source,)
            target = self._whole(node.outputs[0]).layout
        else:
            assert isinstance(source, Value)
            held = self._layout_of(source)
            kept, target = through_reshape(held, shape_of(source), node.outputs[0].shape)
            operands = (self._bring(source, kept),)
        placed = Placed(node.outputs[0], target)
        self._compute(node, (*operands, *node.inputs[1:]), (placed,), {1: placed.local.shape})

    def _cast(self, node: Node) -> None:
        """A cast takes its operand as it lies; that of a parameter waits for its first user."""
        source = node.inputs[0]
        if isinstance(source, Value) and source.name in self.parameters:
            self.cast[node.outputs[0].name] = node
            return
        if isinstance(source, Value):
            layout = self._layout_of(source)
            operand: Operand = self._bring(source, layout)
        else:
            layout, operand = self._whole(node.outputs[0]).layout, source
        self._compute(node, (operand, *node.inputs[1:]), (Placed(node.outputs[0], layout),))

    def _operands(
        self, node: Node, division: Division, labels: tuple[Dims, ...], gathered: frozenset[str]
    ) -> tuple[Operand, ...]:
        """Bring every tensor operand into the layout that the operator wants."""
        wanted = iter(labels)

        def bring(operand: Operand) -> Operand:
            if not is_tensor(operand):
                return operand
            dims = next(wanted, None)
            assert isinstance(operand, (Value, Constant))
            if dims is None:  # one more tensor than the rule names
                dims = (None,) * len(shape_of(operand))
            at_rest, now = division.layout(dims), division.layout(dims, gathered)
            if isinstance(operand, Constant):
                return self._constant(operand, now, node)
            self._settle(operand, at_rest, node)
            return self._bring(operand, now)

        return tuple(self._map(operand, bring) for operand in node.inputs)

    def _constant(self, constant: Constant, layout: Layout, node: Node) -> Operand:
        """A constant array is whole on every rank; it becomes a value only if it must be cut."""
        if all(count == 1 for count in layout.split_counts):
            return constant
        value = Value(f"constant:{id(constant)}", shape_of(constant), constant.dtype)
        if value.name not in self.placed:
            self.placed[value.name] = self._whole(value)
            copy = Node("Identity", node.scope, (constant,), (value,))
            self.steps.append(Compute(copy))
        return self._bring(value, layout)

    def _settle(self, value: Value, layout: Layout, user: Node) -> None:
        """Give a parameter the layout that its first user wants; refuse another one later."""
        cast = self.cast.get(value.name)
        if cast is not None:
            source = cast.inputs[0]
            assert isinstance(source, Value)
            self._settle(source, layout, user)
            if value.name not in self.placed:
                operands = (self._bring(source, layout), *cast.inputs[1:])
                self._compute(cast, operands, (Placed(value, layout),))
        elif value.name in self.parameters and value.name not in self.at_rest:
            held = self.placed.setdefault(value.name, Placed(value, layout))
            first = self.users.setdefault(value.name, user)
            if not same_slices(held.layout, layout, value.shape):
                raise ParameterConflictError(
                    value.name, f"{first} as {held.layout}", f"{user} as {layout}"
                )

    def _layout_of(self, value: Value) -> Layout:
        """Return where a value is; a parameter that no operator placed yet gets its place here."""
        if value.name not in self.placed:
            layout, user = self._later_use(value)
            self._settle(value, layout, user)
        return self.placed[value.name].layout

    def _later_use(self, value: Value) -> tuple[Layout, Node]:
        """Return the layout of a parameter whose first use, a reshape say, does not decide it.

        The next user that does decides; without one, all devices share the rows of the
        parameter if they can (MindSpore: step_parallel.cc, CreateParameterLayout).
        """
        users = self.uses.get(value.name, [])
        for user in users:
            if "in_strategy" in user.attributes and user.op == "Reshape":
                return _reshape_strategy(user, self.devices), user
            signature = rule_of(user)
            if signature is not None and user.op != "Cast":
                pairs = zip(user.tensors, signature.inputs, strict=False)
                dims = next(labels for tensor, labels in pairs if tensor == value)
                return divide(user, signature, self.devices).layout(dims), user
        rows = value.shape[0] if value.shape else 0
        if users and rows and rows % self.devices == 0:
            layout = Layout((self.devices,), ((0,), *((),) * (len(value.shape) - 1)))
            return layout, users[0]
        return self._whole(value).layout, users[0] if users else Node("output", "", (), ())

    def _bring(self, value: Value, layout: Layout) -> Value:
        """Return the value in another layout, moving it there once."""
        held_layout = self._layout_of(value)
        held = self.placed[value.name]
        if same_slices(held_layout, layout, value.shape):
            return held.local
        key = (value.name, layout)
        if key not in self.copies:
            target = Placed(_renamed(value, f"to{len(self.copies)}"), layout)
            self.copies[key] = target
            self.steps.append(Redistribute(held, target, self.made_by.get(value.name)))
        return self.copies[key].local

    def _compute(
        self,
        node: Node,
        operands: tuple[Operand, ...],
        outputs: tuple[Placed, ...],
        changes: Mapping[int | str, Any] = MappingProxyType({}),
        looked_up: Placed | None = None,
        partial: bool = False,
    ) -> None:
        """Append the step that runs a node on local operands."""
        local = tuple(
            Constant(changes[i]) if i in changes else operand for i, operand in enumerate(operands)
        )
        attributes = {name: changes.get(name, value) for name, value in node.attributes.items()}
        values = tuple(
            _renamed(placed.local, "partial") if partial else placed.local for placed in outputs
        )
        here = replace(node, inputs=local, outputs=values, attributes=attributes)
        self.steps.append(Compute(here, looked_up))
        for placed in outputs:
            self.placed[placed.value.name] = placed
            self.made_by[placed.value.name] = node

    def _whole(self, value: Value) -> Placed:
        return Placed(value, whole_layout(self.devices, len(value.shape)))

    def _map(self, operand: Operand, change: Callable[[Any], Operand]) -> Operand:
        if isinstance(operand, tuple):
            return tuple(self._map(item, change) for item in operand)
        plain = isinstance(operand, Constant) and not is_tensor(operand)
        return operand if plain else change(operand)


def same_slices(one: Layout, other: Layout, shape: tuple[int, ...]) -> bool:
    """Tell whether every rank holds the same part in both layouts."""
    return one == other or one.regions(shape) == other.regions(shape)


def _reshape_strategy(node: Node, devices: int) -> Layout:
    """Return what the strategy of a reshape asks of the parameter it reshapes."""
    division, _ = unknown_division(node, devices)
    used = tuple(count for count in division.strategy[0] if count > 1)
    repeated = devices // math.prod(used)
    matrix = ((repeated,) if repeated > 1 else ()) + used
    axes = iter(range(len(matrix) - len(used), len(matrix)))
    split = tuple((next(axes),) if count > 1 else () for count in division.strategy[0])
    return Layout(matrix, split)


def values_of(operand: Operand) -> Iterator[Value]:
    """Yield the values in a nested operand."""
    return (x for x in flatten(operand) if isinstance(x, Value))


def _renamed(value: Value, suffix: str) -> Value:
    return replace(value, name=f"{value.name}@{suffix}")
