"""Drop operators that change nothing, as MindSpore does before it divides a graph.

It matters for layouts: a weight that is reshaped and reshaped back is used by the operator
behind the reshapes, not by a reshape.
"""

from __future__ import annotations

from dataclasses import replace

from workers.spmd.graph import Graph, Node, Operand, Value, flatten, shape_of


def simplify(graph: Graph) -> Graph:
    """Join reshapes of reshapes, drop those that keep the shape, and whatever is then unused."""
    source_of: dict[str, Value] = {}  # result of a reshape -> what it reshapes in the end
    same_as: dict[str, Operand] = {}  # result of a reshape that keeps the shape -> its source
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
        nodes.append(node)
    outputs = _resolved(graph.outputs, same_as)
    return replace(graph, nodes=_used(nodes, outputs), outputs=outputs)


def _resolved(operand: Operand, same_as: dict[str, Operand]) -> Operand:
    if isinstance(operand, tuple):
        return tuple(_resolved(item, same_as) for item in operand)
    return same_as.get(operand.name, operand) if isinstance(operand, Value) else operand


def _used(nodes: list[Node], outputs: Operand) -> tuple[Node, ...]:
    """Return the nodes that the outputs need. All are pure: a graph of inference has no others."""
    needed = {x.name for x in flatten(outputs) if isinstance(x, Value)}
    kept = []
    for node in reversed(nodes):
        if any(value.name in needed for value in node.outputs):
            kept.append(node)
            needed |= {x.name for x in flatten(node.inputs) if isinstance(x, Value)}
    return tuple(reversed(kept))
