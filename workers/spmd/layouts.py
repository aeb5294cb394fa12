"""Divide an operator by MindSpore's Layout objects: device axes with names, ``in_layout``."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

from workers.resharding.layout import Layout
from workers.spmd.division import Division, check_entry, check_split, entries_of
from workers.spmd.errors import StrategyError
from workers.spmd.graph import Node
from workers.spmd.signature import Signature, laid_flat

_Axes = tuple[tuple[int, ...], ...]  # for each dimension, the axes from the left that split it


def divide_by_layout(
    node: Node, signature: Signature, given: Sequence[Mapping[str, Any]], devices: int
) -> Division:
    """Follow the user's layouts: device matrix and axes are theirs, also axes that split nothing.

    Raises:
        StrategyError: MindSpore would refuse them.
    """
    _check_kind(node, signature)
    matrix = _check_matrix(node, given, devices)
    entries = entries_of(node, signature)
    if len(given) != len(entries):
        raise StrategyError(
            node,
            f"{len(given)} layouts for {len(entries)} tensor inputs",
            "give one Layout for each, an empty Layout() for a number",
        )
    axes: dict[str, tuple[int, ...]] = {}
    strategy = []
    for number, ((dims, sizes), layout) in enumerate(zip(entries, given, strict=True)):
        split = _axes_of(matrix, layout)
        entry = tuple(math.prod(matrix[a] for a in own) for own in split)
        check_entry(node, number, sizes, entry, devices)
        strategy.append(entry)
        for d, (label, own) in enumerate(zip(dims, split, strict=True)):
            where = f"dimension {d} of input {number}"
            check_split(node, signature, label, entry[d], where)
            if label is not None and axes.setdefault(label, own) != own:
                raise StrategyError(
                    node,
                    f"{where} lies on other axes of the device matrix than what it meets",
                    "use the same names, in the same order",
                )
    _check_result(node, signature, axes)
    division = Division(matrix, axes, tuple(strategy), generated=False)
    return _without_single_axes(node, signature, division)


def _check_kind(node: Node, signature: Signature) -> None:
    """Refuse layouts for operators that MindSpore takes none for."""
    own = node.attributes.get("self_define_shard")
    if not own and not signature.takes_layout:
        raise StrategyError(
            node,
            "MindSpore takes no Layout for this operator",
            "use a tuple of numbers, or set its attribute self_define_shard and out_strategy",
        )
    if own and not node.attributes.get("out_layout"):
        raise StrategyError(
            node, "self_define_shard needs a Layout of the result", "add out_strategy"
        )


def _check_matrix(
    node: Node, given: Sequence[Mapping[str, Any]], devices: int
) -> tuple[int, ...]:
    matrices = {tuple(layout["device_matrix"]) for layout in given}
    if len(matrices) > 1:
        raise StrategyError(
            node, f"its Layouts have different device matrices: {sorted(matrices)}", "use one"
        )
    (matrix,) = matrices
    if math.prod(matrix) != devices:
        raise StrategyError(
            node,
            f"its Layout has the device matrix {matrix}, which is {math.prod(matrix)} devices;"
            f" there are {devices}",
            "give unused devices an axis with a name of its own",
        )
    if any(layout.get("interleaved_parallel") for layout in given):
        raise StrategyError(node, "interleaved parallel Layouts cannot be simulated")
    return matrix


def _axes_of(matrix: tuple[int, ...], layout: Mapping[str, Any]) -> _Axes:
    return Layout.from_tensor_map(matrix, layout["tensor_map"]).axes


def _check_result(node: Node, signature: Signature, axes: Mapping[str, tuple[int, ...]]) -> None:
    for dims in signature.outputs:
        used = [axis for label in dims for axis in axes.get(label or "", ())]
        if len(set(used)) < len(used):
            raise StrategyError(
                node,
                "two dimensions of its result would lie on the same axis of the device matrix",
                "give one of them another axis",
            )


def _without_single_axes(node: Node, signature: Signature, division: Division) -> Division:
    """Drop axes of one device, as MindSpore does in what it reports, and read ``out_layout``."""
    matrix = division.device_matrix
    kept = [a for a, size in enumerate(matrix) if size > 1]
    place = {axis: number for number, axis in enumerate(kept)}

    def renumbered(axes: tuple[int, ...]) -> tuple[int, ...]:
        return tuple(place[a] for a in axes if a in place)

    return Division(
        tuple(matrix[a] for a in kept) or (math.prod(matrix),),
        {label: renumbered(axes) for label, axes in division.axes.items()},
        division.strategy,
        generated=False,
        scattered=renumbered(_scattered(node, signature, division)),
    )


def _scattered(node: Node, signature: Signature, division: Division) -> tuple[int, ...]:
    """Return the axes by which ``out_layout`` wants dimension 0 of a contraction split further."""
    asked = laid_flat(node.attributes.get("out_layout") or (), dict)
    if not asked or node.attributes.get("self_define_shard"):
        return ()
    wanted = _axes_of(division.device_matrix, asked[0])
    reduced = division.layout(signature.outputs[0]).axes
    contracted = division.axes.get(signature.scatter or "", ())
    if wanted == reduced:
        return ()
    if contracted and wanted == (reduced[0] + contracted, *reduced[1:]):
        return contracted
    raise StrategyError(
        node,
        f"its result comes out as {_in_words(reduced)}, not as its out_strategy says,"
        f" {_in_words(wanted)}",
        "leave out_strategy away, or append the contracted axes to dimension 0 (Reduce-Scatter)",
    )


def _in_words(axes: _Axes) -> str:
    return str([list(own) for own in axes])
