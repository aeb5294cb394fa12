"""Say how the dimensions of an operator's tensors hang together; never how they are divided.

Each dimension of each tensor gets a *label*. Equal labels are the same index of the same
computation, as in an einsum: MatMul is ``mk, kn -> mn``. From the labels everything else
follows: a strategy splits labels; a label that is in the inputs only is contracted, so that
splitting it leaves partial results that the ranks must reduce; a label of the output keeps
its split; ``None`` marks a dimension that is never split (a broadcast one).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Union

from workers.spmd.graph import Node

Dims = tuple[str | None, ...]  # a label for each dimension of one tensor
Splits = Mapping[str, int]  # label -> into how many parts it is split; every label is there

# (node, local shapes of its outputs) -> what becomes different on a slice: constant arguments
# by their index among the node's inputs, attributes by their name
Localize = Callable[[Node, tuple[tuple[int, ...], ...]], dict[Union[int, str], Any]]


@dataclass(frozen=True)
class Signature:
    """The labels of one operator on its actual shapes."""

    inputs: tuple[Dims, ...]  # one for each of the node's ``tensors``, as they rest
    outputs: tuple[Dims, ...]
    batch: str | None = None  # what a generated strategy splits
    order: tuple[str, ...] = ()  # of the device matrix; default: as the inputs have them
    whole: frozenset[str] = frozenset()  # MindSpore refuses a strategy that splits these
    computed: tuple[Dims, ...] | None = None  # the inputs at work, where some are gathered first
    reduction: str = "sum"  # how partial results combine: sum, mean, max or min
    scatter: str | None = None  # contracted label that may split dimension 0 of the result instead
    scatters_unasked: bool = False  # it does so whenever it divides that dimension
    looked_up: str | None = None  # label of the rows that indices pick out of a table
    localize: Localize | None = None
    check: Callable[[Splits, int], str | None] | None = None  # (splits, devices) -> why refused
    entries: tuple[tuple[Dims, tuple[int, ...]], ...] | None = None  # of a strategy, with sizes,
    # where they are not the inputs'
    batch_sizes: tuple[int, ...] | None = None  # what a generated strategy must divide, if not
    # every dimension that ``batch`` labels
    all_or_none: bool = False  # a generated strategy splits over all devices or not at all
    in_data_parallel: bool = False  # MindSpore has no rule and ignores the strategy
    takes_layout: bool = False  # also Layout objects say how it is divided
    known: bool = True  # False: computed whole on every rank

    @property
    def labels(self) -> tuple[str, ...]:
        """Every label once, in the order that the device matrix has them."""
        if self.order:
            return self.order
        return tuple(dict.fromkeys(x for dims in self.inputs for x in dims if x is not None))

    @property
    def at_work(self) -> tuple[Dims, ...]:
        """The labels of the inputs while the operator computes."""
        return self.inputs if self.computed is None else self.computed

    @property
    def contracted(self) -> frozenset[str]:
        """Labels that no output has."""
        kept = {x for dims in self.outputs for x in dims}
        return frozenset(x for dims in self.at_work for x in dims if x is not None) - kept


def laid_flat(given: Any, leaf: type) -> list[Any]:
    """Undo the nesting of strategies for operators whose input is a tuple of tensors."""
    if leaf is dict:
        is_leaf = isinstance(given, dict)
    else:
        is_leaf = all(isinstance(x, int) for x in given)
    return [given] if is_leaf else [x for g in given for x in laid_flat(g, leaf)]
