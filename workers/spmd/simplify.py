"""Drop operators that change nothing, as MindSpore does before it divides a graph.

It matters for layouts: a weight that is reshaped and reshaped back is used by the operator
behind the reshapes, not by a reshape.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import replace

from workers.spmd.errors import CaptureError
from workers.spmd.graph import (
    Block,
    Call,
    End,
    Fork,
    Graph,
    Jump,
    Node,
    Operand,
    Value,
    changed,
    end_reads,
    every_node,
    reads_of,
    shape_of,
    values_of,
)

STRATEGIES = frozenset({"in_strategy", "out_strategy", "in_layout", "out_layout"})

# Operators that write into the parameter that is their first operand.
_WRITERS = re.compile(
    r"Assign|Inplace|Scatter(Nd)?(Update|Add|Sub|Mul|Div|Max|Min)$|ReshapeAndCache|.*KVCache"
)


def simplify(graph: Graph) -> Graph:
    """Join reshapes of reshapes, drop what changes nothing, and whatever is then unused.

    Parameters too: dropout leaves MindSpore's random generator in the graph, whose state is a
    parameter of no network.

    Raises:
        CaptureError: an operator writes into a parameter; a rank would forget it.
    """
    for node in every_node(graph.nodes):
        _refuse_writes(node, graph)
    simplifier = _Simplifier()
    nodes = simplifier.nodes(graph.nodes)
    outputs = simplifier.operand(graph.outputs)
    sent = tuple(values_of(simplifier.operand(graph.sent)))
    ends = (outputs, sent)
    used = _used(nodes, ends)
    read = {value.name for node in used for value in reads_of(node)}
    read |= {value.name for value in values_of(ends)}
    parameters = {name: value for name, value in graph.parameters.items() if name in read}
    return replace(graph, nodes=used, parameters=parameters, outputs=outputs, sent=sent)


def undivided(graph: Graph) -> Graph:
    """Return the graph of a single device, where strategies mean nothing."""

    def plain(node: Node) -> Node:
        kept = {k: v for k, v in node.attributes.items() if k not in STRATEGIES}
        return replace(node, attributes=kept)

    return replace(graph, nodes=changed(graph.nodes, plain))


def _refuse_writes(node: Node, graph: Graph) -> None:
    target = node.inputs[0] if node.inputs else None
    if _WRITERS.match(node.op) and isinstance(target, Value) and target.name in graph.parameters:
        raise CaptureError(
            f"{node} writes into the parameter {target.name}: a simulated rank keeps no state"
            " between batches; pass it in as an input and return the new one"
        )


def _is_identity(node: Node) -> bool:
    """Tell whether a node returns its first input: a copy, or a transpose that moves nothing."""
    if node.op == "TensorMove":  # what a CPU makes of a parameter that is returned
        return True
    permutation = node.argument(1) if node.op == "Transpose" else None
    return permutation is not None and tuple(permutation) == tuple(range(len(permutation)))


class _Simplifier:
    """Walks a block and those inside it: what was learnt around a block holds in it, too."""

    def __init__(self) -> None:
        self.source_of: dict[str, Value] = {}  # result of a reshape -> what it reshapes in the end
        self.same_as: dict[str, Operand] = {}  # result of what changes nothing -> its source

    def nodes(self, nodes: Iterable[Node]) -> list[Node]:
        """Return what is left of nodes, in their order."""
        return [node for old in nodes if (node := self._node(old)) is not None]

    def operand(self, operand: Operand) -> Operand:
        """Return an operand without what changes nothing."""
        if isinstance(operand, tuple):
            return tuple(map(self.operand, operand))
        return self.same_as.get(operand.name, operand) if isinstance(operand, Value) else operand

    def _block(self, block: Block[Node]) -> Block[Node]:
        nodes = self.nodes(block.body)
        end = self._end(block.end)
        return Block(_used(nodes, end), end)

    def _node(self, node: Node) -> Node | None:
        """Return the node that is left of a node, if one is."""
        if node.call is not None:
            return replace(node, call=self._call(node.call))
        inputs = tuple(map(self.operand, node.inputs))
        node = replace(node, inputs=inputs)
        if node.op == "Reshape" and isinstance(inputs[0], Value) and not node.sized_by_data:
            source = self.source_of.get(inputs[0].name, inputs[0])
            result = node.outputs[0]
            node = replace(node, inputs=(source, *inputs[1:]))
            if shape_of(source) == result.shape:
                self.same_as[result.name] = source
                return None
            if "in_strategy" not in node.attributes:
                self.source_of[result.name] = source
        elif _is_identity(node):
            self.same_as[node.outputs[0].name] = inputs[0]
            return None
        return node

    def _call(self, call: Call[Node]) -> Call[Node]:
        initial = tuple(map(self.operand, call.initial))
        return replace(call, initial=initial, block=self._block(call.block))

    def _end(self, end: End[Node]) -> End[Node]:
        if isinstance(end, Jump):
            return replace(end, arguments=tuple(map(self.operand, end.arguments)))
        if isinstance(end, Fork):
            return Fork(self.operand(end.index), tuple(map(self._block, end.blocks)))
        return self._call(end) if isinstance(end, Call) else self.operand(end)


def _used(nodes: list[Node], end: End[Node]) -> tuple[Node, ...]:
    """Return the nodes that a block needs. All are pure: the others have been refused."""
    needed = {value.name for value in end_reads(end, reads_of)}
    kept = []
    for node in reversed(nodes):
        if any(value.name in needed for value in node.outputs):
            kept.append(node)
            needed |= {value.name for value in reads_of(node)}
    return tuple(reversed(kept))
