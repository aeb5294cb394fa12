"""Say how the dimensions of an operator's tensors hang together; never how they are divided.

Each dimension of each tensor gets a *label*. Equal labels are the same index of the same
computation, as in an einsum: MatMul is ``mk, kn -> mn``. From the labels everything else
follows: a strategy splits labels; a label that is in the inputs only is contracted, so that
splitting it leaves partial results that the ranks must reduce; a label of the output keeps
its split; ``None`` marks a dimension that is never split (a broadcast one).
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Union

from workers.spmd.graph import Node

Dims = tuple[str | None, ...]  # a label for each dimension of one tensor

# (node, local shapes of its outputs) -> what becomes different on a slice: constant arguments
# by their index among the node's inputs, attributes by their name
Localize = Callable[[Node, tuple[tuple[int, ...], ...]], dict[Union[int, str], Any]]


@dataclass(frozen=True)
class Signature:
    """The labels of one operator on its actual shapes."""

    inputs: tuple[Dims, ...]  # one for each of the node's ``tensors``
    outputs: tuple[Dims, ...]
    batch: str | None = None  # what a generated strategy splits
    order: tuple[str, ...] = ()  # of the device matrix; default: as the inputs have them
    whole: frozenset[str] = frozenset()  # MindSpore refuses a strategy that splits these
    gathered: frozenset[str] = frozenset()  # may be split at rest, whole when computing
    reduction: str = "sum"  # how partial results combine: sum, mean, max or min
    looked_up: str | None = None  # label of the rows that indices pick out of a table
    localize: Localize | None = None

    @property
    def labels(self) -> tuple[str, ...]:
        """Every label once, in the order that the device matrix has them."""
        if self.order:
            return self.order
        return tuple(dict.fromkeys(x for dims in self.inputs for x in dims if x is not None))

    @property
    def contracted(self) -> frozenset[str]:
        """Labels that no output has."""
        kept = {x for dims in self.outputs for x in dims}
        return frozenset(x for x in self.labels if x not in kept)
