"""Decide how the devices divide one operator: by the user's strategy, or by a generated one."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

from workers.spmd.division import Division, Entry, check_entry, check_split, entries_of
from workers.spmd.errors import StrategyError
from workers.spmd.graph import Node, shape_of
from workers.spmd.layouts import divide_by_layout
from workers.spmd.signature import Signature, Splits, laid_flat


def divide(node: Node, signature: Signature, devices: int) -> Division:
    """Divide a node over ``devices`` as MindSpore does.

    Raises:
        StrategyError: MindSpore would refuse the user's strategy, or the one it generates.
    """
    given_layout = node.attributes.get("in_layout")
    given = node.attributes.get("in_strategy")
    if given_layout:
        return divide_by_layout(node, signature, laid_flat(given_layout, dict), devices)
    if signature.in_data_parallel or not given:
        return _by_generated(node, signature, devices)
    splits = _user_splits(node, signature, laid_flat(given, tuple), devices)
    reason = signature.check(splits, devices) if signature.check else None
    if reason:
        raise StrategyError(node, reason)
    return _by_splits(node, signature, splits, devices, generated=False)


def _by_generated(node: Node, signature: Signature, devices: int) -> Division:
    """Split dimension 0 over as many devices as divide it: MindSpore's batch parallel.

    MindSpore does not look whether the operator can bear that, and then refuses its own strategy.
    """
    splits = dict.fromkeys(signature.labels, 1)
    batch = signature.batch
    if batch is None:
        return _by_splits(node, signature, splits, devices, generated=True)
    splits[batch] = _generated_split(node, signature, batch, devices)
    reason = signature.check(splits, devices) if signature.check else None
    if batch in signature.whole:
        reason = "the operator computes along it"
    for dims, sizes in entries_of(node, signature):
        for label, size in zip(dims, sizes, strict=True):
            if label == batch and size % splits[batch]:
                reason = f"{splits[batch]} devices do not divide {size}"
    if reason and splits[batch] > 1:
        ones = tuple((1,) * len(dims) for dims, _ in entries_of(node, signature))
        raise StrategyError(
            node,
            f"without a strategy MindSpore splits dimension 0 {splits[batch]} ways, but {reason}",
            f"give it a strategy, such as .shard({ones})",
        )
    return _by_splits(node, signature, splits, devices, generated=True)


def _generated_split(node: Node, signature: Signature, batch: str, devices: int) -> int:
    sizes: Sequence[int]
    if signature.batch_sizes is not None:
        sizes = signature.batch_sizes
    else:
        sizes = [
            shape_of(tensor)[dims.index(batch)]
            for tensor, dims in zip(node.tensors, signature.inputs, strict=False)
            if batch in dims
        ]
    count = math.gcd(devices, *sizes)
    return 1 if signature.all_or_none and count < devices else count


def _user_splits(
    node: Node, signature: Signature, given: Sequence[Entry], devices: int
) -> dict[str, int]:
    """Read ``in_strategy`` into a number of splits for each label, and check it."""
    entries = entries_of(node, signature)
    if len(given) != len(entries):
        raise StrategyError(
            node,
            f"the strategy {tuple(given)} has {len(given)} entries, but the operator has"
            f" {len(entries)} tensor inputs",
            "give one tuple for each of them; a number that is added or multiplied takes ()",
        )
    splits: dict[str, int] = {}
    sources: dict[str, str] = {}
    for number, ((dims, sizes), entry) in enumerate(zip(entries, given, strict=True)):
        check_entry(node, number, sizes, entry, devices)
        for d, (label, count) in enumerate(zip(dims, entry, strict=True)):
            where = f"dimension {d} of input {number}"
            check_split(node, signature, label, count, where)
            if label is None:
                continue
            if splits.setdefault(label, count) != count:
                raise StrategyError(
                    node,
                    f"{where} is split {count} ways, but {sources[label]}, which it meets,"
                    f" is split {splits[label]} ways",
                    "split both alike",
                )
            sources.setdefault(label, where)
    return dict.fromkeys(signature.labels, 1) | splits


def _by_splits(
    node: Node, signature: Signature, splits: Splits, devices: int, generated: bool
) -> Division:
    """Give every split label an axis of its own; devices left over repeat the computation.

    Their axis is the last, except for a table split by its rows, where it is the first
    (MindSpore: gather_info.cc, repeated_num_in_dev_matrix_right_).
    """
    split = [label for label in signature.labels if splits[label] > 1]
    used = math.prod(splits[label] for label in split)
    if used > devices or devices % used:
        raise StrategyError(
            node,
            f"its strategy uses {used} devices, which do not divide the {devices} there are",
            f"make the product of the splits a divisor of {devices}",
        )
    repeated = (devices // used,) if used < devices or not split else ()
    sizes = tuple(splits[label] for label in split)
    left = repeated if signature.looked_up in split else ()
    axes = {label: (len(left) + i,) for i, label in enumerate(split)}
    return Division(
        left + sizes if left else sizes + repeated,
        axes,
        tuple(
            tuple(splits.get(label or "", 1) for label in dims)
            for dims, _ in entries_of(node, signature)
        ),
        generated,
        _scattered(node, signature, splits, axes),
    )


def _scattered(
    node: Node, signature: Signature, splits: Splits, axes: Mapping[str, tuple[int, ...]]
) -> tuple[int, ...]:
    """Return the axes by which a Reduce-Scatter splits the result; none for an AllReduce."""
    asked = node.attributes.get("out_strategy")
    if asked and signature.scatter is None:
        raise StrategyError(
            node, "MindSpore takes no out_strategy for this operator", "leave out_strategy away"
        )
    if signature.scatter is None:
        return ()
    reduced = tuple(splits.get(label or "", 1) for label in signature.outputs[0])
    parts = splits[signature.scatter]
    scattered = (reduced[0] * parts, *reduced[1:])
    fits = parts > 1 and node.outputs[0].shape[0] % scattered[0] == 0
    if asked:
        wanted = laid_flat(asked, tuple)[0]
        if wanted != reduced and not (fits and wanted == scattered):
            allowed = f"{reduced} or {scattered}" if fits else f"{reduced}"
            raise StrategyError(
                node, f"its result cannot be divided as out_strategy {wanted}", f"write {allowed}"
            )
        fits = wanted == scattered != reduced
    elif not signature.scatters_unasked or reduced[0] > 1:
        fits = False
    return axes[signature.scatter] if fits else ()
