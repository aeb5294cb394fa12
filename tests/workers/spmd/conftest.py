"""Networks of the fixtures, captured once, and a lockstep executor that needs no processes."""

from __future__ import annotations

import json
import sys
import uuid
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from importlib.util import module_from_spec, spec_from_file_location
from pathlib import Path
from typing import Any

import numpy as np
import pytest

Ranks = dict[int, dict[str, Any]]  # global rank -> the values it holds

FIXTURES = Path(__file__).parents[2] / "fixtures"


@pytest.fixture(scope="session")
def fixtures() -> Path:
    return FIXTURES


@pytest.fixture(scope="session")
def known_layouts() -> Callable[[str], dict[str, Any]]:
    """Return what MindSpore 2.10 itself compiled for a case."""

    def read(case: str) -> dict[str, Any]:
        known: dict[str, Any] = json.loads((FIXTURES / case / "layouts.json").read_text())
        return known

    return read


@pytest.fixture(scope="session")
def capture_case() -> Callable[[str, int], Any]:
    """Return the graph of a fixture's network for a number of devices, and its input."""
    from workers.spmd.capture import capture, set_parallel_context

    if str(FIXTURES) not in sys.path:
        sys.path.append(str(FIXTURES))  # its modules import each other
    spec = spec_from_file_location("factories_of_fixtures", FIXTURES / "factories.py")
    assert spec is not None and spec.loader is not None
    factories = module_from_spec(spec)
    sys.modules[spec.name] = factories  # MindSpore looks up the source of what it compiles there
    spec.loader.exec_module(factories)

    def run(case: str, devices: int) -> Any:
        set_parallel_context(0, devices)
        network, data = getattr(factories, case)(), getattr(factories, case + "_input")()
        return capture(network, [data]), data

    return run


@pytest.fixture(scope="session")
def capture_cell() -> Callable[..., Any]:
    """Return the graph of a cell that a callable builds under the parallel context."""
    from workers.spmd.capture import capture, set_parallel_context

    def run(make: Callable[[], Any], inputs: Sequence[Any], devices: int = 8) -> Any:
        set_parallel_context(0, devices)
        return capture(make(), inputs)

    return run


@pytest.fixture(scope="session")
def on_ranks() -> Callable[[int, Callable[[Any], Any]], list[Any]]:
    """Run ``work(mesh)`` in a thread for each rank and return the results; meshes are closed."""
    from workers.spmd.mesh import Mesh

    def on_ranks(count: int, work: Callable[[Any], Any]) -> list[Any]:
        job = uuid.uuid4().hex

        def run(rank: int) -> Any:
            with closing(Mesh(rank, count, job)) as mesh:
                return work(mesh)

        with ThreadPoolExecutor(count) as pool:
            return list(pool.map(run, range(count)))

    return on_ranks


@pytest.fixture(scope="session")
def lockstep() -> Callable[..., Any]:
    """Run all ranks of a program, or of those of a pipeline, in this process; return each
    rank's outputs.

    Redistribution and reduction are done on whole tensors with NumPy: another way to the same
    answer than the collectives that real ranks use.
    """
    import mindspore

    from workers.spmd.execute import RankProgram
    from workers.spmd.graph import Block, Call, Constant, Fork, Jump
    from workers.spmd.operators import argument
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
    )
    from workers.spmd.redistribution import reduction_groups
    from workers.tensors import to_tensor

    kernels: dict[tuple[int, Any], Any] = {}  # compute steps, as real ranks prepare them

    def to_array(tensor: Any) -> np.ndarray:
        return tensor.asnumpy() if hasattr(tensor, "asnumpy") else np.asarray(tensor)

    def cut(placed: Placed, whole: np.ndarray, rank: int) -> Any:
        region = placed.layout.region(rank, placed.value.shape)
        return to_tensor(whole[region.as_slices()].copy(), placed.value.dtype)

    def join(placed: Placed, ranks: Ranks) -> np.ndarray:
        parts = {rank: to_array(values[placed.value.name]) for rank, values in ranks.items()}
        whole = np.empty(placed.value.shape, next(iter(parts.values())).dtype)
        for rank, part in parts.items():
            whole[placed.layout.region(rank, placed.value.shape).as_slices()] = part
        return whole

    def run(
        program: Program | tuple[Program, ...],
        parameters: Mapping[str, np.ndarray],
        inputs: Sequence[Any],
    ) -> Any:
        mindspore.set_context(mode=mindspore.PYNATIVE_MODE)
        programs = program if isinstance(program, tuple) else (program,)
        stages: list[tuple[list[Step], Ranks]] = []
        for program in programs:
            ranks: Ranks = {}
            for rank in program.ranks:
                values = {n: cut(p, parameters[n], rank) for n, p in program.parameters.items()}
                for placed, given in zip(program.inputs, inputs, strict=True):
                    whole = placed.local.shape == placed.value.shape
                    part = given if whole else cut(placed, to_array(given), rank)
                    values[placed.value.name] = part
                ranks[rank] = values
            stages.append((list(program.steps), ranks))
        run_pipeline(stages)
        return [
            tuple(map(to_array, leaves(run_end(program.outputs, ranks)[rank])))
            for program, (_, ranks) in zip(programs, stages, strict=True)
            for rank in ranks
        ]

    def run_pipeline(stages: list[tuple[list[Step], Ranks]]) -> None:
        """Let each stage run until it must receive what nobody has sent yet."""
        sent: dict[Send, list[Any]] = {}
        while any(steps for steps, _ in stages):
            before = sum(len(steps) for steps, _ in stages)
            for steps, ranks in stages:
                while steps:
                    step = steps[0]
                    if isinstance(step, Send):
                        name = step.source.value.name
                        sent[step] = [to_array(values[name]) for values in ranks.values()]
                    elif isinstance(step, Receive):
                        if step.send not in sent:
                            break
                        for values, part in zip(ranks.values(), sent[step.send], strict=True):
                            name = step.target.value.name
                            values[name] = to_tensor(part.copy(), step.target.value.dtype)
                    else:
                        run_step(step, ranks)
                    steps.pop(0)
            assert sum(len(steps) for steps, _ in stages) < before, "the stages wait for each other"

    def run_block(block: Block[Step], ranks: Ranks) -> dict[int, Any]:
        """Return each rank's result of a block, or the arguments of its jump."""
        for step in block.body:
            run_step(step, ranks)
        return run_end(block.end, ranks)

    def run_end(end: Any, ranks: Ranks) -> dict[int, Any]:
        if isinstance(end, Jump):
            return {r: (end.loop, fetched(end.arguments, values)) for r, values in ranks.items()}
        if isinstance(end, Fork):
            (index,) = {int(to_array(fetched(end.index, values))) for values in ranks.values()}
            copies = {rank: dict(values) for rank, values in ranks.items()}
            return run_block(end.blocks[index], copies)
        if isinstance(end, Call):
            return run_call(end, ranks)
        return {rank: fetched(end, values) for rank, values in ranks.items()}

    def run_call(call: Call[Step], ranks: Ranks) -> dict[int, Any]:
        rounds = {r: (call.loop, fetched(call.initial, values)) for r, values in ranks.items()}
        while True:
            inner = {
                rank: values | {f.name: x for f, x in zip(call.formals, rounds[rank][1])}
                for rank, values in ranks.items()
            }
            rounds = run_block(call.block, inner)
            first = next(iter(rounds.values()))
            if not (isinstance(first, tuple) and first and first[0] == call.loop):
                return rounds

    def run_step(step: Step, ranks: Ranks) -> None:
        if isinstance(step, Compute):
            for rank, values in ranks.items():
                if (rank, step) not in kernels:
                    kernels[rank, step] = RankProgram.prepare_compute(step, rank)
                kernels[rank, step](values)
        elif isinstance(step, Invoke):
            for rank, result in run_call(step.call, ranks).items():
                names = [v.name for v in step.outputs]
                ranks[rank].update(zip(names, leaves(result), strict=True))
        elif isinstance(step, Redistribute):
            whole = join(step.source, ranks)
            for rank, values in ranks.items():
                values[step.target.value.name] = cut(step.target, whole, rank)
        else:
            assert isinstance(step, Reduce)
            groups = reduction_groups(step.source.layout, step.axes)
            partial = {r: to_array(values[step.source.value.name]) for r, values in ranks.items()}
            combine = {"sum": np.sum, "mean": np.mean, "max": np.max, "min": np.min}[step.how]
            for rank, values in ranks.items():
                total = combine(np.stack([partial[m] for m in groups[rank]]), axis=0)
                total = np.asarray(total, partial[rank].dtype)
                shape = step.source.value.shape
                held = step.source.layout.region(rank, shape)
                kept = step.target.layout.region(rank, shape).relative_to(held)
                values[step.target.value.name] = to_tensor(np.array(total[kept.as_slices()]))

    def fetched(operand: Any, values: dict[str, Any]) -> Any:
        if isinstance(operand, tuple):
            return tuple(fetched(item, values) for item in operand)
        return argument(operand) if isinstance(operand, Constant) else values[operand.name]

    def leaves(result: Any) -> list[Any]:
        if isinstance(result, tuple):
            return [leaf for item in result for leaf in leaves(item)]
        return [result]

    return run
