"""Decide how the devices divide one operator: by the user's strategy, or by a generated one."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from workers.resharding.layout import Layout
from workers.spmd.errors import StrategyError
from workers.spmd.graph import Node, shape_of
from workers.spmd.signature import Dims, Signature


@dataclass(frozen=True)
class Division:
    """The devices of one operator, and which of their axes split which label."""

    device_matrix: tuple[int, ...]
    axes: Mapping[str, tuple[int, ...]]  # label -> axes from the left, major to minor
    strategy: tuple[tuple[int, ...], ...]  # splits of each dimension of each tensor operand
    generated: bool

    def layout(self, dims: Dims, without: frozenset[str] = frozenset()) -> Layout:
        """Return the layout of a tensor with these labels; labels in ``without`` stay whole."""
        axes = tuple(
            self.axes.get(label, ()) if label is not None and label not in without else ()
            for label in dims
        )
        return Layout(self.device_matrix, axes)

    def split(self, label: str) -> bool:
        """Tell whether more than one device shares the label."""
        return math.prod(self.device_matrix[a] for a in self.axes.get(label, ())) > 1


def divide(node: Node, signature: Signature, devices: int) -> Division:
    """Divide a node over ``devices`` as MindSpore does.

    Raises:
        StrategyError: MindSpore would refuse the user's strategy.
    """
    given_layout = node.attributes.get("in_layout")
    if given_layout:
        return _by_layout(node, signature, _laid_flat(given_layout, dict), devices)
    given = node.attributes.get("in_strategy")
    if given:
        counts = _user_counts(node, signature, given, devices)
    else:
        counts = _generated_counts(signature, node, devices)
    matrix, axes = _device_matrix(signature, counts, devices, str(node))
    strategy = tuple(tuple(counts.get(x or "", 1) for x in dims) for dims in signature.inputs)
    return Division(matrix, axes, strategy, generated=not given)


def unknown_division(node: Node, devices: int) -> tuple[Division, tuple[Dims, ...]]:
    """Divide an operator that the table does not know; also return labels for its inputs.

    Only its parameters at rest follow its strategy. Dimensions in the same place that are
    split alike share their devices, as element-wise operators do.
    """
    given = node.attributes.get("in_strategy")
    shapes = [shape_of(x) for x in node.tensors]
    whole = [(1,) * len(shape) for shape in shapes]
    entries = [*_laid_flat(given, tuple), *whole][: len(shapes)] if given else whole
    dims: list[Dims] = []
    counts: dict[str, int] = {}
    for number, (shape, entry) in enumerate(zip(shapes, entries, strict=True)):
        _check_entry(str(node), number, shape, entry, devices)
        labels = tuple(f"d{d}x{count}" for d, count in enumerate(entry))
        dims.append(labels)
        counts.update(zip(labels, entry, strict=True))
    signature = Signature(tuple(dims), ())
    if math.prod(counts.values()) > devices:
        raise StrategyError(
            str(node), f"its strategy {tuple(entries)} needs more than {devices} devices"
        )
    matrix, axes = _device_matrix(signature, counts, devices, str(node))
    return Division(matrix, axes, tuple(entries), generated=not given), tuple(dims)


def _generated_counts(signature: Signature, node: Node, devices: int) -> dict[str, int]:
    """Split dimension 0 over as many devices as divide it: MindSpore's batch parallel."""
    batch = signature.batch
    if batch is None or batch in signature.whole | signature.gathered:
        return {}
    sizes = [
        shape_of(x)[dims.index(batch)]
        for x, dims in zip(node.tensors, signature.inputs, strict=False)
        if batch in dims
    ]
    count = math.gcd(devices, *sizes)
    return {batch: count} if sizes and count > 1 else {}


def _user_counts(
    node: Node, signature: Signature, given: Any, devices: int
) -> dict[str, int]:
    """Read ``in_strategy`` into a number of splits for each label, and check it."""
    entries = _laid_flat(given, tuple)
    operator = str(node)
    if len(entries) != len(signature.inputs):
        raise StrategyError(
            operator,
            f"the strategy {tuple(entries)} has {len(entries)} entries, but the operator has"
            f" {len(signature.inputs)} tensor inputs; give one tuple for each",
        )
    counts: dict[str, int] = {}
    sources: dict[str, str] = {}
    for number, (tensor, dims, entry) in enumerate(
        zip(node.tensors, signature.inputs, entries, strict=False)
    ):
        _check_entry(operator, number, shape_of(tensor), entry, devices)
        for d, (label, count) in enumerate(zip(dims, entry, strict=True)):
            where = f"dimension {d} of input {number}"
            _check_split(operator, signature, label, count, where)
            if label is None:
                continue
            if counts.setdefault(label, count) != count:
                raise StrategyError(
                    operator,
                    f"{where} is split {count} ways, but {sources[label]}, which it meets,"
                    f" is split {counts[label]} ways; they must be equal",
                )
            sources.setdefault(label, where)
    return counts


def _check_entry(
    operator: str, number: int, shape: tuple[int, ...], entry: tuple[int, ...], devices: int
) -> None:
    """Refuse splits that do not fit the shape of input ``number``, or the devices."""
    if len(entry) != len(shape):
        raise StrategyError(
            operator,
            f"the strategy {entry} of input {number} has {len(entry)} numbers, but its shape"
            f" {shape} has {len(shape)} dimensions",
        )
    for d, (size, count) in enumerate(zip(shape, entry, strict=True)):
        if count < 1 or size % count:
            raise StrategyError(
                operator,
                f"dimension {d} of input {number} has {size} elements, which {count} devices"
                " do not divide; use a split that divides it",
            )
        if count & (count - 1) and not devices & (devices - 1):
            raise StrategyError(
                operator,
                f"dimension {d} of input {number} is split {count} ways; on {devices} devices"
                " MindSpore splits by powers of 2 only",
            )


def _check_split(
    operator: str, signature: Signature, label: str | None, count: int, where: str
) -> None:
    if count == 1:
        return
    if label is None:
        raise StrategyError(operator, f"{where} is broadcast, so it cannot be split {count} ways")
    if label in signature.whole:
        raise StrategyError(
            operator,
            f"{where} is split {count} ways, but the operator computes along it;"
            " its strategy must be 1 there",
        )


def _device_matrix(
    signature: Signature, counts: Mapping[str, int], devices: int, operator: str
) -> tuple[tuple[int, ...], dict[str, tuple[int, ...]]]:
    """Give every split label an axis of its own; devices left over repeat the computation.

    Their axis is the last, except for a table split by its rows, where it is the first
    (MindSpore: gather_info.cc, repeated_num_in_dev_matrix_right_).
    """
    split = [label for label in signature.labels if counts.get(label, 1) > 1]
    used = math.prod(counts[label] for label in split)
    if used > devices or devices % used:
        raise StrategyError(
            operator,
            f"its strategy uses {used} devices, which do not divide the {devices} there are;"
            f" the product of the splits must be a divisor of {devices}",
        )
    repeated = (devices // used,) if used < devices or not split else ()
    sizes = tuple(counts[label] for label in split)
    left = repeated if signature.looked_up in split else ()
    matrix = left + sizes if left else sizes + repeated
    return matrix, {label: (len(left) + i,) for i, label in enumerate(split)}


def _by_layout(
    node: Node, signature: Signature, layouts: Sequence[Mapping[str, Any]], devices: int
) -> Division:
    """Follow ``in_layout``: MindSpore's Layout objects, with named axes counted from the right."""
    operator = str(node)
    if len(layouts) != len(signature.inputs):
        raise StrategyError(
            operator,
            f"{len(layouts)} layouts for {len(signature.inputs)} tensor inputs; give one for each",
        )
    matrix = tuple(layouts[0]["device_matrix"])
    if math.prod(matrix) != devices:
        raise StrategyError(
            operator,
            f"its Layout has the device matrix {matrix}, which is {math.prod(matrix)} devices;"
            f" there are {devices}",
        )
    axes: dict[str, tuple[int, ...]] = {}
    strategy = []
    for number, (tensor, dims, layout) in enumerate(
        zip(node.tensors, signature.inputs, layouts, strict=False)
    ):
        if tuple(layout["device_matrix"]) != matrix:
            raise StrategyError(operator, "its Layouts have different device matrices")
        if layout.get("interleaved_parallel"):
            raise StrategyError(operator, "interleaved parallel Layouts cannot be simulated")
        split = Layout.from_tensor_map(matrix, layout["tensor_map"]).axes
        entry = tuple(math.prod(matrix[a] for a in s) for s in split)
        _check_entry(operator, number, shape_of(tensor), entry, devices)
        strategy.append(entry)
        for d, (label, own) in enumerate(zip(dims, split, strict=True)):
            where = f"dimension {d} of input {number}"
            _check_split(operator, signature, label, entry[d], where)
            if label is not None and axes.setdefault(label, own) != own:
                raise StrategyError(
                    operator, f"{where} lies on other axes of the device matrix than what it meets"
                )
    return Division(matrix, axes, tuple(strategy), generated=False)


def _laid_flat(given: Any, leaf: type) -> list[Any]:
    """Undo the nesting of strategies for operators whose input is a tuple of tensors."""
    if leaf is dict:
        is_leaf = isinstance(given, dict)
    else:
        is_leaf = all(isinstance(x, int) for x in given)
    return [given] if is_leaf else [x for g in given for x in _laid_flat(g, leaf)]
