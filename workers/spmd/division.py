"""Hold how the devices divide one operator, and refuse what no operator allows."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass

from workers.resharding.layout import Layout
from workers.spmd.errors import StrategyError
from workers.spmd.graph import Node, shape_of
from workers.spmd.signature import Dims, Signature

Entry = tuple[int, ...]  # the splits of each dimension of one tensor, or its sizes


@dataclass(frozen=True)
class Division:
    """The devices of one operator, and which of their axes split which label."""

    device_matrix: tuple[int, ...]
    axes: Mapping[str, tuple[int, ...]]  # label -> axes from the left, major to minor
    strategy: tuple[Entry, ...]  # splits of each dimension of each tensor operand
    generated: bool
    scattered: tuple[int, ...] = ()  # axes of a contraction that split dimension 0 of the result

    def layout(self, dims: Dims) -> Layout:
        """Return the layout of a tensor with these labels."""
        return Layout(self.device_matrix, self._axes_of(dims))

    def scattered_layout(self, dims: Dims) -> Layout:
        """Return the layout of a result after a Reduce-Scatter."""
        rows, *rest = self._axes_of(dims)
        return Layout(self.device_matrix, (rows + self.scattered, *rest))

    def split(self, label: str) -> bool:
        """Tell whether more than one device shares the label."""
        return math.prod(self.device_matrix[a] for a in self.axes.get(label, ())) > 1

    def _axes_of(self, dims: Dims) -> tuple[tuple[int, ...], ...]:
        return tuple(self.axes.get(label or "", ()) for label in dims)


def entries_of(node: Node, signature: Signature) -> tuple[tuple[Dims, Entry], ...]:
    """Return the labels and sizes of what each entry of a strategy divides."""
    if signature.entries is not None:
        return signature.entries
    pairs = zip(signature.inputs, node.tensors, strict=False)
    return tuple((dims, shape_of(tensor)) for dims, tensor in pairs)


def check_entry(node: Node, number: int, sizes: Entry, entry: Entry, devices: int) -> None:
    """Refuse splits that do not fit the shape of input ``number``, or the devices."""
    if len(entry) != len(sizes):
        raise StrategyError(
            node,
            f"the strategy {entry} of input {number} has {len(entry)} numbers, but its shape"
            f" {sizes} has {len(sizes)} dimensions",
            f"give {len(sizes)} numbers",
        )
    for d, (size, count) in enumerate(zip(sizes, entry, strict=True)):
        if count < 1 or size % count:
            raise StrategyError(
                node,
                f"dimension {d} of input {number} has {size} elements, which {count} devices"
                " do not divide",
                f"split it into {_fitting(size, devices)} parts",
            )
        if count & (count - 1) and not devices & (devices - 1):
            raise StrategyError(
                node,
                f"dimension {d} of input {number} is split {count} ways; on {devices} devices"
                " MindSpore splits by powers of 2 only",
                f"split it into {_fitting(size, devices)} parts",
            )


def check_split(
    node: Node, signature: Signature, label: str | None, count: int, where: str
) -> None:
    """Refuse a split of a dimension that the operator needs whole."""
    if count == 1:
        return
    if label is None:
        raise StrategyError(
            node, f"{where} cannot be split {count} ways, this operator needs it whole", "write 1"
        )
    if label in signature.whole:
        raise StrategyError(
            node, f"{where} is split {count} ways, but the operator computes along it", "write 1"
        )


def _fitting(size: int, devices: int) -> str:
    """Return the numbers of parts that a dimension allows, in words."""
    allowed = [n for n in range(1, devices + 1) if size % n == 0 and devices % n == 0]
    return " or ".join(map(str, allowed))
