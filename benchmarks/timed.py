"""A simulated rank that prints where its time went, batch by batch: for benchmarks/simulated.py."""

from __future__ import annotations

import json
import time
from collections import Counter
from collections.abc import Callable
from typing import Any

from workers.runtimes import simulated
from workers.spmd.execute import RankProgram
from workers.spmd.program import Compute, Step

SPENT: Counter[str] = Counter()


class TimedProgram(RankProgram):
    """Adds up what its steps take."""

    def _prepare(self, step: Step) -> Callable[[Any], None]:
        run = super()._prepare(step)
        computes = isinstance(step, Compute)

        def timed(values: Any) -> None:
            wall_s, own_s = time.monotonic(), time.thread_time()
            run(values)
            own_s, wall_s = time.thread_time() - own_s, time.monotonic() - wall_s
            # MindSpore computes in threads of its own: what this thread did is dispatch.
            SPENT["dispatching operators" if computes else "copying"] += own_s
            SPENT["operators" if computes else "waiting for ranks"] += wall_s - own_s

        return timed


class TimedRuntime(simulated.SimulatedRuntime):
    """Prints the seconds of each batch when the next one comes."""

    def predict(self, batch: tuple[Any, ...]) -> Any:
        """Predict, and print."""
        SPENT.clear()
        started_s = time.monotonic()
        outputs = super().predict(batch)
        print(json.dumps({"batch": time.monotonic() - started_s, **SPENT}))
        return outputs


simulated.RankProgram = TimedProgram  # type: ignore[misc]
