"""Say what a rank asks of the machinery that runs its network; never how that is done.

Three modules answer: ``simulated`` (CPU processes that execute the parallel program
themselves), ``device`` (Ascend or GPU, MindSpore's own parallel graph) and ``single``
(one device, no parallel context). They are the only ones, with ``workers.spmd``, that
import mindspore.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Protocol, runtime_checkable

import numpy as np

from workers.resharding.layout import Layout


@dataclass(frozen=True)
class WantedParameter:
    """A parameter of the predict graph and how the ranks divide it."""

    layout: Layout
    full_shape: tuple[int, ...]
    dtype: str  # MindSpore's name, as checkpoints write it: "Float32", "BFloat16", ...


class Runtime(Protocol):
    """One rank's network. The worker calls the methods in the order they stand in here."""

    def open(self) -> None:
        """Set the (parallel) context, build the network and make its input."""

    def wanted_parameters(self) -> Mapping[str, WantedParameter]:
        """Return the predict layout of every parameter of the network."""

    def load(self, slices: Mapping[str, np.ndarray]) -> None:
        """Take this rank's slice of parameters; a bfloat16 slice comes as uint16.

        A parameter that is not among them keeps the initial value that the network gives it.
        """

    def compile(self) -> None:
        """Prepare the steps of one prediction; every later batch reuses them."""

    def batches(self) -> Iterator[tuple[Any, ...]]:
        """Yield the inputs of each prediction, in the order of the user's data."""

    def predict(self, batch: tuple[Any, ...]) -> tuple[np.ndarray, ...]:
        """Return the whole outputs of the network. Every rank; blocks until all ranks call it."""

    def waiting_for(self) -> tuple[int, str] | None:
        """Return the rank that ``predict`` waits for at this moment, and in which collective."""

    def close(self) -> None:
        """Let go of devices, peers and memory; allowed at any time, and twice."""


@runtime_checkable
class OnDevice(Protocol):
    """A ``Runtime`` whose tensors lie in the memory of a device."""

    def device_memory_bytes(self) -> int:
        """Return the most memory of the device that tensors of this rank have held."""


@runtime_checkable
class Evaluator(Runtime, Protocol):
    """A ``Runtime`` that can do the whole of task "eval" by itself."""

    def evaluate(self, deliver: Callable[[tuple[np.ndarray, ...]], None]) -> Mapping[str, Any]:
        """Return the metrics, as numbers and lists of them; ``deliver`` outputs with labels."""
