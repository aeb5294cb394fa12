"""Answer ``launcher layout``: the program that simulated ranks would run, as JSON.

A child of its own, since the launcher never imports mindspore. Reads a request on standard
input, writes the report on standard output; what the user's code prints goes to standard error.
"""

from __future__ import annotations

import json
import os
import sys
from typing import Any

from workers.resharding.layout import Layout
from workers.spmd.program import Program, Redistribute, Reduce
from workers.spmd.redistribution import plan_redistribution, reduction_groups


def report(program: Program) -> dict[str, Any]:
    """Return the layouts, operators and collectives (as rank 0 sees them) of a program."""
    return {
        "parameters": {
            name: {
                "device_matrix": list(placed.layout.device_matrix),
                "tensor_map": list(placed.layout.tensor_map),
                "full_shape": list(placed.value.shape),
                "slice_shape": list(placed.local.shape),
                "dtype": placed.value.dtype,
            }
            for name, placed in program.parameters.items()
        },
        "operators": [
            {
                "op": operator.node.op,
                "scope": operator.node.scope,
                "strategy": [list(entry) for entry in operator.division.strategy],
                "generated": operator.division.generated,
                "sliced": operator.known,
            }
            for operator in program.operators
        ],
        "collectives": [entry for step in program.steps for entry in _collective(step)],
    }


def layout_of(item: dict[str, Any]) -> Layout:
    """Return the layout that an entry of ``parameters`` describes."""
    layout = Layout.from_tensor_map(item["device_matrix"], item["tensor_map"])
    return layout.folded(len(item["full_shape"]))


def _collective(step: Any) -> list[dict[str, Any]]:
    if isinstance(step, Reduce):
        group = reduction_groups(step.source.layout, step.axes)[0]
        return [_entry("AllReduce", group, step.after)]
    if isinstance(step, Redistribute):
        shape = step.source.value.shape
        transfer = plan_redistribution(step.source.layout, step.target.layout, shape)[0]
        if len(transfer.group) > 1:
            return [_entry(transfer.kind, transfer.group, step.after)]
    return []


def _entry(op: str, group: tuple[int, ...], after: str) -> dict[str, Any]:
    return {"op": op, "ranks": list(group), "rank_size": len(group), "after": after}


def main() -> int:
    """Read one request, write one report."""
    request = json.load(sys.stdin)
    answer = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)  # the user's prints must not mix with the report
    from workers.errors import WorkerError
    from workers.spec import WorkerSpec

    try:
        from workers.runtimes.simulated import SimulatedRuntime

        spec = WorkerSpec(
            rank=0,
            rank_size=request["ranks"],
            local_rank=0,
            device_id=0,
            server_id="localhost",
            device="simulated",
            network=request["network"],
            predict_data=request["predict_data"],
            search_path=tuple(request.get("search_path", ())),
        )
        runtime = SimulatedRuntime(spec)
        runtime.open()
        program = runtime.divide()
    except WorkerError as error:
        print(error, file=sys.stderr)
        return error.exit_code
    with answer:
        json.dump(report(program), answer)
    return 0


if __name__ == "__main__":
    sys.exit(main())
