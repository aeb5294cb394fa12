"""Decide in which pipeline stage each operator runs, and cut a graph into its stages.

A cell says its stage, and what it computes takes the stage along to operators outside of such
cells. What depends on no stage (a mask made of the inputs, a weight that is transposed) is
computed wherever it is needed, in several stages perhaps.

MindIR knows the cell of operators that are attributes of one. Functions (``x + y``, ``ops.relu``)
it puts into the first cell that calls them; they run where their data come from, or later, in
the stage of a parameter that they use with them. It keeps equal operators once, so that a function
may bear the name of an attribute of another cell: its own cell has no such operator.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from typing import Any

from workers.spmd.errors import StrategyError
from workers.spmd.graph import Graph, Node, Operand, Value, changed, every_node, reads_of, values_of
from workers.spmd.source import path_of

_NONE = -1  # the stage of what depends on no stage


def with_stages(graph: Graph, network: Any) -> Graph:
    """Return the graph with ``Node.stage`` filled in: that of the innermost cell that has one."""
    cells = dict(network.cells_and_names())
    stages = {
        name: cell.pipeline_stage
        for name, cell in cells.items()
        if getattr(cell, "pipeline_stage", _NONE) != _NONE
    }
    if not stages:
        return graph

    def stage_of(path: Sequence[str]) -> int:
        around = (".".join(path[:depth]) for depth in reversed(range(len(path) + 1)))
        return next((stages[name] for name in around if name in stages), _NONE)

    owned: dict[str, int] = {}  # parameters, and what functions make of them alone
    for name, cell in cells.items():
        stage = stage_of(name.split("."))
        for parameter in cell.parameters_dict(recurse=False).values():
            owned[parameter.name] = min(stage, owned.get(parameter.name, stage))

    def is_attribute(node: Node) -> bool:
        cell = cells.get(".".join(path_of(node)))
        return node.instance != "" and (
            cell is None or any(own.name == node.op for own in cell._primitives.values() if own)
        )

    def staged(node: Node) -> Node:
        if is_attribute(node):
            return replace(node, stage=stage_of(path_of(node)))
        node = replace(node, instance="")
        values = list(values_of(node.inputs))
        claims = [owned[value.name] for value in values if value.name in owned]
        if claims and len(claims) == len(values):
            owned.update((value.name, max(claims)) for value in node.outputs)
            return node
        return replace(node, stage=max(claims, default=_NONE))

    return replace(graph, nodes=changed(graph.nodes, staged))


def cut(graph: Graph, stages: int) -> tuple[Graph, ...]:
    """Return the graph of each stage; the last one has the outputs of the network.

    Behind the inputs of the network come the values that earlier stages send, in the order in
    which they send them.

    Raises:
        StrategyError: MindSpore would refuse these stages.
    """
    stage_of = _stages_of(graph.nodes, stages)
    ends: list[Operand] = [*((),) * (stages - 1), graph.outputs]
    parts = [_part(graph.nodes, stage, stage_of, end) for stage, end in enumerate(ends)]
    sent = []
    for stage, (nodes, _) in enumerate(parts):
        later = {name for _, uses in parts[stage + 1 :] for name in uses}
        made = (x for node in nodes if stage_of[node] == stage for x in node.outputs)
        sent.append(tuple(value for value in made if value.name in later))
        _refuse_unknown_sizes(nodes, sent[stage])
        _refuse_reshapes(nodes, sent[stage])
    used = {name for _, uses in parts for name in uses}
    return tuple(
        Graph(
            nodes,
            {
                name: value
                for name, value in graph.parameters.items()
                if name in uses or (stage == stages - 1 and name not in used)
            },
            graph.inputs + tuple(x for own in sent[:stage] for x in own if x.name in uses),
            ends[stage],
            sent[stage],
        )
        for stage, (nodes, uses) in enumerate(parts)
    )


def _stages_of(nodes: Iterable[Node], stages: int) -> dict[Node, int]:
    """Return the stage of each operator: that of its cell, or the latest of what it uses."""
    found: dict[Node, int] = {}
    made_by: dict[str, Node] = {}
    for node in nodes:
        used = [made_by[value.name] for value in reads_of(node) if value.name in made_by]
        latest = max(used, key=found.__getitem__, default=None)
        before = found[latest] if latest is not None else _NONE
        own = _own_stage(node, stages)
        known = any(inner.instance for inner in every_node((node,)))
        if latest is not None and _NONE < own < before and known:
            raise StrategyError(
                node,
                f"it is in pipeline stage {own}, but uses what {latest} makes in stage {before}",
                "data go from a stage to later ones only",
            )
        found[node] = max(own, before)
        made_by |= dict.fromkeys((value.name for value in node.outputs), node)
    without = sorted(set(range(stages)) - set(found.values()))
    if without:
        raise StrategyError(
            "the network",
            f"there are {stages} pipeline stages, but no operator is in stage {without[0]}",
            "set pipeline_stage of cells with parameters, or with operators as attributes, in each"
            " stage; or ask for fewer",
        )
    return found


def _own_stage(node: Node, stages: int) -> int:
    """Return the stage that ``with_stages`` found, for control flow that of what is inside."""
    own = {inner.stage for inner in every_node((node,))} - {_NONE}
    if len(own) > 1:
        raise StrategyError(
            node,
            f"a branch or loop on data has operators of several pipeline stages, {sorted(own)}",
            "put it into one stage",
        )
    stage = own.pop() if own else _NONE
    if stage >= stages:
        raise StrategyError(
            node,
            f"its cell has pipeline_stage {stage}, but there are {stages} stages, from 0 on",
        )
    constant = node.call is None and not any(reads_of(node))
    return _NONE if constant else stage


def _part(
    nodes: Sequence[Node], stage: int, stage_of: Mapping[Node, int], end: Operand
) -> tuple[tuple[Node, ...], dict[str, Value]]:
    """Return what runs in a stage, and all values that this uses."""
    uses = {value.name: value for value in values_of(end)}
    kept = []
    for node in reversed(nodes):
        needed = stage_of[node] == _NONE and any(value.name in uses for value in node.outputs)
        if needed or stage_of[node] == stage:
            kept.append(node)
            uses |= {value.name: value for value in reads_of(node)}
    return tuple(reversed(kept)), uses


def _refuse_unknown_sizes(nodes: Iterable[Node], sent: Iterable[Value]) -> None:
    made_by = {value.name: node for node in nodes for value in node.outputs}
    for value in sent:
        if any(size < 0 for size in value.shape):
            raise StrategyError(
                made_by[value.name],
                "the data decide the size of what it makes, and a pipeline stage cannot send that",
                "use it in the stage that makes it",
            )


def _refuse_reshapes(nodes: Iterable[Node], sent: Iterable[Value]) -> None:
    made_by = {value.name: node for node in nodes for value in node.outputs}
    for value in sent:
        node: Node | None = made_by[value.name]
        while node is not None and node.op == "Cast":
            node = next((made_by.get(source.name) for source in values_of(node.inputs)), None)
        if node is not None and node.op == "Reshape" and node.instance:
            raise StrategyError(
                node,
                "a pipeline stage cannot send what it reshaped (MindSpore: Reshape op can't be a"
                " border)",
                "reshape in the next stage, or let another operator follow",
            )
