"""Networks of the fixtures, captured once, and a lockstep executor that needs no processes."""

from __future__ import annotations

import json
import sys
import uuid
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from pathlib import Path
from typing import Any

import numpy as np
import pytest

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
        sys.path.insert(0, str(FIXTURES))
    import factories

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
    """Run all ranks of a program in this process; return each rank's outputs.

    Redistribution and reduction are done on whole tensors with NumPy: another way to the same
    answer than the collectives that real ranks use.
    """
    import mindspore

    from workers.spmd.execute import RankProgram
    from workers.spmd.partition import values_of
    from workers.spmd.program import Compute, Placed, Program, Redistribute
    from workers.spmd.redistribution import reduction_groups
    from workers.tensors import to_tensor

    def to_array(tensor: Any) -> np.ndarray:
        return tensor.asnumpy()

    def cut(placed: Placed, whole: np.ndarray, rank: int) -> Any:
        region = placed.layout.region(rank, placed.value.shape)
        return to_tensor(whole[region.as_slices()].copy(), placed.value.dtype)

    def join(placed: Placed, ranks: list[dict[str, Any]]) -> np.ndarray:
        parts = [to_array(values[placed.value.name]) for values in ranks]
        whole = np.empty(placed.value.shape, parts[0].dtype)
        for rank, part in enumerate(parts):
            whole[placed.layout.region(rank, placed.value.shape).as_slices()] = part
        return whole

    def run(program: Program, parameters: Mapping[str, np.ndarray], inputs: Sequence[Any]) -> Any:
        mindspore.set_context(mode=mindspore.PYNATIVE_MODE)
        size = program.devices
        ranks: list[dict[str, Any]] = []
        for rank in range(size):
            values = {n: cut(p, parameters[n], rank) for n, p in program.parameters.items()}
            values.update(zip([v.name for v in program.inputs], inputs, strict=True))
            ranks.append(values)
        steps = [_Stepper(program, rank) for rank in range(size)]
        for index, step in enumerate(program.steps):
            if isinstance(step, Compute):
                for rank in range(size):
                    steps[rank].compute(index, ranks[rank])
            elif isinstance(step, Redistribute):
                whole = join(step.source, ranks)
                for rank in range(size):
                    ranks[rank][step.target.value.name] = cut(step.target, whole, rank)
            else:
                groups = reduction_groups(step.source.layout, step.axes)
                name = step.source.value.name
                partial = [to_array(values[name]) for values in ranks]
                combine = {"sum": np.sum, "mean": np.mean, "max": np.max, "min": np.min}[step.how]
                for rank in range(size):
                    total = combine(np.stack([partial[m] for m in groups[rank]]), axis=0)
                    total = np.asarray(total, partial[rank].dtype)
                    shape = step.source.value.shape
                    held = step.source.layout.region(rank, shape)
                    kept = step.target.layout.region(rank, shape).relative_to(held)
                    total = np.array(total[kept.as_slices()])
                    ranks[rank][step.target.value.name] = to_tensor(total)
        outputs = list(values_of(program.outputs))
        return [tuple(to_array(values[v.name]) for v in outputs) for values in ranks]

    class _Stepper:
        """The compute steps of one rank, as real ranks prepare them."""

        def __init__(self, program: Program, rank: int) -> None:
            self.steps = {
                index: RankProgram.prepare_compute(step, rank)
                for index, step in enumerate(program.steps)
                if isinstance(step, Compute)
            }

        def compute(self, index: int, values: dict[str, Any]) -> None:
            self.steps[index](values)

    return run
