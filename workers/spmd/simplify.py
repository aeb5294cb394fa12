"""Drop operators that change nothing, as MindSpore does before it divides a graph.

It matters for layouts: a weight that is reshaped and reshaped back is used by the operator
behind the reshapes, not by a reshape.
"""

from __future__ import annotations

import re
from dataclasses import replace

from workers.spmd.errors import CaptureError
from workers.spmd.graph import Graph, Node, Operand, Value, flatten, shape_of

STRATEGIES = frozenset({"in_strategy", "out_strategy", "in_layout", "out_layout"})

# Operators that write into the parameter that is their first operand.
_WRITERS = re.compile(
    r"Assign|Inplace|Scatter(Nd)?(Update|Add|Sub|Mul|Div|Max|Min)$|ReshapeAndCache|.*KVCache"
)


def simplify(graph: Graph) -> Graph:
    """Join reshapes of reshapes, drop what changes nothing, and whatever is then unused.

    Raises:
        CaptureError: an operator writes into a parameter; a rank would forget it.
    """
    for node in graph.nodes:
        _refuse_writes(node, graph)
    source_of: dict[str, Value] = {}  # result of a reshape -> what it reshapes in the end
    same_as: dict[str, Operand] = {}  # result of what changes nothing -> its source
    nodes = []
    for node in graph.nodes:
        inputs = tuple(_resolved(operand, same_as) for operand in node.inputs)
        node = replace(node, inputs=inputs)
        if node.op == "Reshape" and isinstance(inputs[0], Value):
            source = source_of.get(inputs[0].name, inputs[0])
            result = node.outputs[0]
            node = replace(node, inputs=(source, *inputs[1:]))
            if shape_of(source) == result.shape:
                same_as[result.name] = source
                continue
            if "in_strategy" not in node.attributes:
                source_of[result.name] = source
        elif _is_identity(node):
            same_as[node.outputs[0].name] = inputs[0]
            continue
        nodes.append(node)
    outputs = _resolved(graph.outputs, same_as)
    return replace(graph, nodes=_used(nodes, outputs), outputs=outputs)


def undivided(graph: Graph) -> Graph:
    """Return the graph of a single device, where strategies mean nothing."""

    def plain(node: Node) -> Node:
        kept = {k: v for k, v in node.attributes.items() if k not in STRATEGIES}
        return replace(node, attributes=kept)

    return replace(graph, nodes=tuple(map(plain, graph.nodes)))


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


def _resolved(operand: Operand, same_as: dict[str, Operand]) -> Operand:
    if isinstance(operand, tuple):
        return tuple(_resolved(item, same_as) for item in operand)
    return same_as.get(operand.name, operand) if isinstance(operand, Value) else operand


def _used(nodes: list[Node], outputs: Operand) -> tuple[Node, ...]:
    """Return the nodes that the outputs need. All are pure: the others have been refused."""
    needed = {x.name for x in flatten(outputs) if isinstance(x, Value)}
    kept = []
    for node in reversed(nodes):
        if any(value.name in needed for value in node.outputs):
            kept.append(node)
            needed |= {x.name for x in flatten(node.inputs) if isinstance(x, Value)}
    return tuple(reversed(kept))
