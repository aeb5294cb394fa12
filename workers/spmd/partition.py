"""Divide a graph over the devices: each operator its layouts, each tensor its way between."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace
from itertools import count
from types import MappingProxyType
from typing import Any

from workers.resharding.layout import Layout
from workers.spmd.division import Division
from workers.spmd.errors import StrategyError
from workers.spmd.graph import (
    Block,
    Call,
    Constant,
    End,
    Fork,
    Graph,
    Jump,
    Node,
    Operand,
    Value,
    is_tensor,
    shape_of,
    values_of,
)
from workers.spmd.program import (
    Compute,
    Invoke,
    Operator,
    Placed,
    Program,
    Redistribute,
    Reduce,
    Step,
    whole_layout,
)
from workers.spmd.redistribution import same_slices
from workers.spmd.reshape import through_reshape
from workers.spmd.rules import rule_of
from workers.spmd.settlement import RESULT, Settlement
from workers.spmd.signature import Dims, Signature
from workers.spmd.simplify import simplify, undivided
from workers.spmd.strategy import divide


def partition(
    graph: Graph, devices: int, at_rest: Mapping[str, Layout] = MappingProxyType({})
) -> Program:
    """Return the parallel program of a network on ``devices`` ranks.

    The outputs are whole on every rank, and so are the inputs (``full_batch``) unless ``at_rest``
    says otherwise. Any number of devices will do, also one that HCCL refuses (it takes 1, 2, 4 and
    multiples of 8).

    Args:
        at_rest: where parameters and inputs lie already; each use redistributes them as it
            needs. Without an entry here, the operators decide where a parameter lies, and an
            input is whole.

    Raises:
        StrategyError: MindSpore would refuse an operator's strategy.
        ParameterConflictError: two operators want a parameter in different layouts.
    """
    return _Partition(graph, devices, at_rest).run()


class _Partition:
    """Walks the operators in order; ``placed`` knows where each value is, step by step."""

    def __init__(self, graph: Graph, devices: int, at_rest: Mapping[str, Layout]) -> None:
        self.graph, self.devices = simplify(graph if devices > 1 else undivided(graph)), devices
        self.steps: list[Step] = []
        self.operators: list[Operator] = []
        self.placed: dict[str, Placed] = {}  # values that some step has made, or the inputs
        self.inputs = tuple(
            Placed(value, at_rest.get(value.name, self._whole(value).layout))
            for value in graph.inputs
        )
        self.placed.update((placed.value.name, placed) for placed in self.inputs)
        self.made_by: dict[str, Node] = {}  # the operator that made a value, for reports
        self.cast: dict[str, Node] = {}  # casts of parameters, placed where they are first used
        self.settlement = Settlement(self.graph, devices, at_rest)
        self.copies: dict[tuple[str, Layout], Placed] = {}
        self.numbers = count()

    def run(self) -> Program:
        for node in self.graph.nodes:
            self._node(node)
        outputs = self._all_gathered(self.graph.outputs)
        sent = tuple(map(self._held, self.graph.sent))
        return Program(
            self.devices,
            {name: self.settlement.placed[name] for name in self.graph.parameters},
            self.inputs,
            tuple(self.steps),
            outputs,
            tuple(self.operators),
            sent,
        )

    def _all_gathered(self, operand: Operand) -> Operand:
        return self._map(operand, self._gathered)

    def _gathered(self, output: Value | Constant) -> Operand:
        """Return an output of the network, or of a block, whole on every rank."""
        if isinstance(output, Constant):
            return output
        whole = self._whole(output).layout
        if output.name in self.graph.parameters:
            self._settle(output, whole, RESULT)
        return self._bring(output, whole)

    def _node(self, node: Node) -> None:
        if node.call is not None:
            self.steps.append(Invoke(self._call(node.call), node.outputs))
            for value in node.outputs:
                self.placed[value.name] = self._whole(value)
                self.made_by[value.name] = node
        elif node.op == "Cast":
            self._cast(node)
        elif node.op == "Reshape" and not node.sized_by_data:
            self._reshape(node)
        else:
            self._operator(node, rule_of(node, self.devices))

    def _call(self, call: Call[Node]) -> Call[Step]:
        initial = tuple(map(self._all_gathered, call.initial))
        for formal in call.formals:
            self.placed[formal.name] = self._whole(formal)
        return Call(call.loop, call.formals, initial, self._block(call.block))

    def _block(self, block: Block[Node]) -> Block[Step]:
        """Divide a block; what it places and copies is not there when it has not run."""
        steps, copies, placed = self.steps, self.copies, self.placed
        self.steps, self.copies, self.placed = [], dict(copies), dict(placed)
        for node in block.body:
            self._node(node)
        end = self._end(block.end)
        done = Block(tuple(self.steps), end)
        self.steps, self.copies, self.placed = steps, copies, placed
        return done

    def _end(self, end: End[Node]) -> End[Step]:
        if isinstance(end, Jump):
            return replace(end, arguments=tuple(map(self._all_gathered, end.arguments)))
        if isinstance(end, Fork):
            index = self._all_gathered(end.index)
            return Fork(index, tuple(map(self._block, end.blocks)))
        return self._call(end) if isinstance(end, Call) else self._all_gathered(end)

    def _operator(self, node: Node, signature: Signature) -> None:
        """Run an operator on slices, and reduce what that leaves partial."""
        division = divide(node, signature, self.devices)
        self.operators.append(Operator(node, division, signature.known))
        operands = self._operands(node, division, signature)
        outputs = tuple(
            Placed(value, division.layout(dims))
            for value, dims in zip(node.outputs, signature.outputs, strict=True)
        )
        local_shapes = tuple(placed.local.shape for placed in outputs)
        changes = signature.localize(node, local_shapes) if signature.localize else {}
        contracted = [x for x in signature.labels if x in signature.contracted]
        partial = tuple(axis for x in contracted for axis in division.axes.get(x, ()))
        looked_up = None
        if signature.looked_up is not None and division.split(signature.looked_up):
            operands, looked_up = _table_first(node, operands, division, signature)
        self._compute(node, operands, outputs, changes, looked_up, bool(partial))
        for placed, dims in zip(outputs, signature.outputs, strict=True):
            if partial:
                layout = division.scattered_layout(dims) if division.scattered else placed.layout
                self._reduce(node, placed, layout, partial, signature.reduction)

    def _reduce(
        self, node: Node, placed: Placed, layout: Layout, axes: tuple[int, ...], how: str
    ) -> None:
        """Reduce partial results; each rank keeps what ``layout`` gives it."""
        source = Placed(_renamed(placed.value, "partial"), placed.layout)
        target = self.placed[placed.value.name] = Placed(placed.value, layout)
        self.steps.append(Reduce(source, target, axes, how, node))

    def _reshape(self, node: Node) -> None:
        """Reshape what each rank has, after gathering the splits that the new shape cannot keep."""
        source = node.inputs[0]
        if node.attributes.get("in_strategy") and source not in self.graph.parameters.values():
            raise StrategyError(
                node,
                "a strategy on Reshape means nothing, unless it reshapes a parameter",
                "leave it away: the operators around it decide",
            )
        if isinstance(source, Constant):
            operands: tuple[Operand, ...] = (source,)
            target = self._whole(node.outputs[0]).layout
        else:
            assert isinstance(source, Value)
            held = self._held(source).layout
            kept, target = through_reshape(held, shape_of(source), node.outputs[0].shape)
            operands = (self._bring(source, kept),)
        placed = Placed(node.outputs[0], target)
        self._compute(node, (*operands, *node.inputs[1:]), (placed,), {1: placed.local.shape})

    def _cast(self, node: Node) -> None:
        """A cast takes its operand as it lies; that of a parameter waits for its first user."""
        source = node.inputs[0]
        if isinstance(source, Value) and source.name in {*self.graph.parameters, *self.cast}:
            self.cast[node.outputs[0].name] = node
            return
        if isinstance(source, Value):
            layout = self._held(source).layout
            operand: Operand = self._bring(source, layout)
        else:
            layout, operand = self._whole(node.outputs[0]).layout, source
        self._compute(node, (operand, *node.inputs[1:]), (Placed(node.outputs[0], layout),))

    def _operands(
        self, node: Node, division: Division, signature: Signature
    ) -> tuple[Operand, ...]:
        """Bring every tensor operand into the layout that the operator wants."""
        wanted = zip(signature.inputs, signature.at_work, strict=True)

        def bring(operand: Operand) -> Operand:
            if not is_tensor(operand):
                return operand
            assert isinstance(operand, (Value, Constant))
            whole: Dims = (None,) * len(shape_of(operand))  # a tensor more than the rule names
            at_rest, at_work = next(wanted, (whole, whole))
            if isinstance(operand, Constant):
                return self._constant(operand, division.layout(at_work), node)
            self._settle(operand, division.layout(at_rest), node)
            return self._bring(operand, division.layout(at_work))

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

    def _settle(self, value: Value, layout: Layout, user: Node, cast: bool = False) -> None:
        """Let an operator have its say where a parameter lies; place the cast of one."""
        casting = self.cast.get(value.name)
        if casting is not None:
            source = casting.inputs[0]
            assert isinstance(source, Value)
            self._settle(source, layout, user, cast=True)
            if value.name not in self.placed:
                operands = (self._bring(source, layout), *casting.inputs[1:])
                self._compute(casting, operands, (Placed(value, layout),))
        elif value.name in self.graph.parameters:
            self.settlement.settle(value, layout, user, cast)

    def _held(self, value: Value) -> Placed:
        """Return where a value is; a parameter that no operator placed yet gets its place here."""
        known = self.settlement.placed if value.name in self.graph.parameters else self.placed
        if value.name not in known:
            self._settle(value, *self.settlement.later_use(self._uncast(value)))
        return known[value.name]

    def _uncast(self, value: Value) -> Value:
        """Return the parameter behind a cast that waits for its first user."""
        while value.name in self.cast:
            (value,) = values_of(self.cast[value.name].inputs)
        return value

    def _bring(self, value: Value, layout: Layout) -> Value:
        """Return the value in another layout, moving it there once."""
        held = self._held(value)
        if same_slices(held.layout, layout, value.shape):
            return held.local
        key = (value.name, layout)
        if key not in self.copies:
            target = Placed(_renamed(value, f"to{next(self.numbers)}"), layout)
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


def _table_first(
    node: Node, operands: tuple[Operand, ...], division: Division, signature: Signature
) -> tuple[tuple[Operand, ...], Placed]:
    """Return the operands of a masked look-up, the table before the indices, and the table."""
    number = next(i for i, dims in enumerate(signature.inputs) if signature.looked_up in dims)
    table = node.tensors[number]
    assert isinstance(table, Value)  # a constant cannot be split by rows
    placed = Placed(table, division.layout(signature.inputs[number]))
    return (operands[number], operands[1 - number]), placed


def _renamed(value: Value, suffix: str) -> Value:
    return replace(value, name=f"{value.name}@{suffix}")
