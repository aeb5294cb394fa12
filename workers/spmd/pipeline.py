"""Divide a network over the stages of a pipeline: a program for each, and what goes between them.

Each stage is partitioned as if it were a network of its own on devices of its own; then its
program moves to where its ranks are.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from types import MappingProxyType

from workers.resharding.layout import Layout
from workers.spec import FULL_BATCH, DatasetStrategy
from workers.spmd.errors import ParameterConflictError
from workers.spmd.feeding import input_layouts
from workers.spmd.graph import Graph, Node, mapped, values_of
from workers.spmd.partition import partition
from workers.spmd.program import (
    Compute,
    Invoke,
    Placed,
    Program,
    Receive,
    Redistribute,
    Reduce,
    Send,
    Step,
    maker_of,
    whole_layout,
    writes_of,
)
from workers.spmd.redistribution import same_slices
from workers.spmd.stages import cut


def divide_network(
    graph: Graph,
    devices: int,
    stages: int = 1,
    at_rest: Mapping[str, Layout] = MappingProxyType({}),
    dataset_strategy: DatasetStrategy = FULL_BATCH,
) -> tuple[Program, ...]:
    """Return the program of each pipeline stage, on ``devices // stages`` ranks each.

    Every rank gets the outputs of the last stage.

    Args:
        at_rest: where parameters lie already.
        dataset_strategy: how the ranks of a stage divide the inputs.

    Raises:
        DatasetStrategyError: MindSpore would refuse how the inputs are divided.
        StrategyError: MindSpore would refuse an operator's strategy, or the stages.
        ParameterConflictError: two operators want a parameter in different layouts.
    """
    layouts = {name: replace(layout, stages=(0,)) for name, layout in at_rest.items()}
    layouts |= input_layouts(dataset_strategy, graph.inputs, devices // stages)
    if stages == 1:
        return (partition(graph, devices, layouts),)
    graphs = cut(graph, stages)
    programs = []
    for part in graphs:
        program = partition(part, devices // stages, layouts)
        layouts |= {x.name: y.layout for x, y in zip(part.sent, program.sent, strict=True)}
        programs.append(program)
    sends = dict(_sends(graphs, programs))
    results = tuple(_results(programs, graph))
    parameters = _parameters(programs)
    moved = []
    for stage, (part, program) in enumerate(zip(graphs, programs, strict=True)):
        received = {x: sends[x.name] for x in part.inputs[len(graph.inputs) :]}
        makers = {x.name: send.after for x, send in received.items()}
        steps = (
            *(Receive(y, Placed(x, y.source.layout).on(stage)) for x, y in received.items()),
            *_moved(program.steps, stage, makers),
            *(sends[x.name] for x in part.sent),
            *(results if part is graphs[-1] else _receipts(results, stage)),
        )
        moved.append(
            replace(
                program,
                parameters={name: parameters[name] for name in program.parameters},
                inputs=tuple(x.on(stage) for x in program.inputs[: len(graph.inputs)]),
                steps=steps,
                outputs=programs[-1].outputs,
                stage=stage,
            )
        )
    return tuple(moved)


def _sends(graphs: Sequence[Graph], programs: Sequence[Program]) -> Iterator[tuple[str, Send]]:
    """Yield what a stage sends to later ones as it lies, by its name in the network."""
    for stage, (part, program) in enumerate(zip(graphs, programs, strict=True)):
        makers = _makers(program)
        for value, placed in zip(part.sent, program.sent, strict=True):
            to = tuple(s for s, later in enumerate(graphs) if value in later.inputs)
            yield value.name, Send(placed.on(stage), to, makers.get(placed.value.name))


def _results(programs: Sequence[Program], graph: Graph) -> Iterator[Send]:
    """Yield the outputs of the last stage on their way to all others."""
    *others, last = range(len(programs))
    program = programs[last]
    makers, whole = _makers(program), set(graph.inputs)
    for value in dict.fromkeys(values_of(program.outputs)):
        if value not in whole:
            placed = Placed(value, whole_layout(program.devices, len(value.shape)))
            yield Send(placed.on(last), tuple(others), makers.get(value.name))


def _receipts(sends: Iterable[Send], stage: int) -> Iterator[Receive]:
    return (Receive(send, send.source.on(stage)) for send in sends)


def _makers(program: Program) -> dict[str, Node | None]:
    return {value.name: maker_of(step) for step in program.steps for value in writes_of(step)}


def _parameters(programs: Sequence[Program]) -> dict[str, Placed]:
    """Return where each parameter lies in all its stages, which must divide it alike."""
    found: dict[str, Placed] = {}
    for stage, program in enumerate(programs):
        for name, placed in program.parameters.items():
            first = found.setdefault(name, placed.on())
            if not same_slices(placed.layout, first.on(0).layout, placed.value.shape):
                raise ParameterConflictError(
                    name,
                    f"stage {first.layout.stages[0]} as {first.layout}",
                    f"stage {stage} as {placed.layout}",
                )
            found[name] = first.on(*first.layout.stages, stage)
    return found


def _moved(
    steps: Iterable[Step], stage: int, makers: Mapping[str, Node | None]
) -> tuple[Step, ...]:
    """Return steps of a stage that was taken for the first, where its ranks are.

    Args:
        makers: of what the stage received; for the stage alone they were inputs.
    """

    def move(step: Step) -> Step:
        if isinstance(step, Invoke):
            return replace(step, call=mapped(step.call, lambda body: _moved(body, stage, makers)))
        if isinstance(step, Compute):
            table = step.looked_up
            return replace(step, looked_up=table.on(stage) if table is not None else None)
        assert isinstance(step, (Redistribute, Reduce))  # a partition has no others
        if isinstance(step, Redistribute) and step.after is None:
            step = replace(step, after=makers.get(step.source.value.name))
        return replace(step, source=step.source.on(stage), target=step.target.on(stage))

    return tuple(map(move, steps))
