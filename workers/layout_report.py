"""Answer ``launcher layout``: the programs that simulated ranks would run, as JSON.

A child of its own, since the launcher never imports mindspore. Reads a request on standard
input, writes the report on standard output; what the user's code prints goes to standard error.
"""

from __future__ import annotations

import json
import math
import os
import sys
from collections.abc import Iterator, Sequence
from dataclasses import replace
from typing import Any

from workers.errors import WorkerError
from workers.lifeline import die_with
from workers.resharding.dtypes import STORAGE
from workers.spec import FULL_BATCH, DeviceOptions, WorkerSpec
from workers.spmd.graph import Node, values_of
from workers.spmd.memory import activation_bytes
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
)
from workers.spmd.redistribution import plan_redistribution, reduction_groups


def report(programs: Sequence[Program]) -> dict[str, Any]:
    """Return the layouts, operators and collectives of the programs of all pipeline stages.

    The collectives are those of the first rank of each stage.
    """
    first = programs[0]
    return {
        "parameters": {
            name: _placed(placed)
            | {"dtype": placed.value.dtype, "stages": list(placed.layout.stages)}
            for program in programs
            for name, placed in program.parameters.items()
        },
        "inputs": {placed.value.users_name: _placed(placed) for placed in first.inputs},
        "operators": [
            {
                "op": operator.node.op,
                "scope": operator.node.scope,
                "strategy": [list(entry) for entry in operator.division.strategy],
                "generated": operator.division.generated,
                "sliced": operator.known,
                "stage": program.stage,
            }
            for program in programs
            for operator in program.operators
        ],
        "collectives": [found for program in programs for found in _collectives(program)],
        "activation_bytes": max(map(activation_bytes, programs)),
    }


def _placed(placed: Placed) -> dict[str, Any]:
    """Return items 0, 1, 6 and 2 of MindSpore's layout tuple."""
    return {
        "device_matrix": list(placed.layout.device_matrix),
        "tensor_map": list(placed.layout.tensor_map),
        "full_shape": list(placed.value.shape),
        "slice_shape": list(placed.local.shape),
    }


def _collectives(program: Program) -> Iterator[dict[str, Any]]:
    """Yield what the first rank does together with others, in the order of the program."""
    steps, rank = program.every_step, program.ranks[0]
    for index, step in enumerate(steps):
        if isinstance(step, (Compute, Invoke, Send)):  # what is sent is received, too
            continue
        source = step.send.source if isinstance(step, Receive) else step.source
        group: tuple[int, ...]
        if isinstance(step, Receive):
            op, group = "Receive", (step.send.group(rank)[0], rank)
            elements = math.prod(step.target.local.shape)
        elif isinstance(step, Reduce):
            op, group = step.kind, reduction_groups(source.layout, step.axes)[rank]
            elements = math.prod(source.local.shape)
            if op == "ReduceScatter":
                elements = (len(group) - 1) * math.prod(step.target.local.shape)
        else:
            shape = source.value.shape
            transfer = plan_redistribution(source.layout, step.target.layout, shape)[rank]
            op, group, elements = transfer.kind, transfer.group, transfer.elements_received
        if len(group) > 1:
            yield {
                "op": op,
                "ranks": list(group),
                "rank_size": len(group),
                "bytes": elements * STORAGE[source.value.dtype].itemsize,
                "after": _op(maker_of(step)),
                "before": _op(_next_user(steps[index + 1 :], step.target.value.name)),
                "tensor": source.value.name,
            }


def _op(node: Node | None) -> str | None:
    return node.op if node is not None else None


def _next_user(steps: Sequence[Step], name: str) -> Node | None:
    """Return the first operator that reads a value; None when only the network's output has it."""
    for number, step in enumerate(steps, 1):
        if isinstance(step, Compute):
            if name in (value.name for value in values_of(step.node.inputs)):
                return step.node
        elif isinstance(step, (Redistribute, Reduce)) and step.source.value.name == name:
            return _next_user(steps[number:], step.target.value.name)
    return None


def _report_whole(spec: WorkerSpec) -> dict[str, Any]:
    """Return the report of ranks that hold whole weights; nobody divides their network."""
    from workers.runtimes.single import SingleRuntime

    runtime = SingleRuntime(replace(spec, device="cpu"))
    runtime.open()
    parameters = {
        name: {
            "device_matrix": list(wanted.layout.device_matrix),
            "tensor_map": list(wanted.layout.tensor_map),
            "full_shape": list(wanted.full_shape),
            "slice_shape": list(wanted.full_shape),
            "dtype": wanted.dtype,
            "stages": [0],
        }
        for name, wanted in runtime.wanted_parameters().items()
    }
    undivided: dict[str, Any] = {"inputs": {}, "operators": [], "collectives": []}
    return {"parameters": parameters, "activation_bytes": 0, **undivided}


def main() -> int:
    """Read one request, write one report."""
    request = json.load(sys.stdin)
    die_with(request["launcher"])
    answer = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)  # the user's prints must not mix with the report
    try:
        from workers.runtimes.simulated import SimulatedRuntime

        spec = WorkerSpec(
            rank=0,
            rank_size=request["ranks"],
            device_options=DeviceOptions(
                pipeline_stages=request["pipeline_stages"],
                dataset_strategy=request.get("dataset_strategy", FULL_BATCH),
            ),
            device_id=0,
            server_id="localhost",
            device="simulated",
            parallel_mode=request.get("parallel_mode", "semi_auto_parallel"),
            network=request["network"],
            network_args=request["network_args"],
            predict_data=request["predict_data"],
            task=request.get("task", "predict"),
            batch_size=request.get("batch_size"),
            search_path=tuple(request.get("search_path", ())),
        )
        if spec.shares_data:
            found = _report_whole(spec)
        else:
            runtime = SimulatedRuntime(spec)
            runtime.open()
            found = report(runtime.divide())
    except WorkerError as error:
        print(error, file=sys.stderr)
        return error.exit_code
    with answer:
        json.dump(found, answer)
    return 0


if __name__ == "__main__":
    sys.exit(main())
