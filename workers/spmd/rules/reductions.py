"""Label the operators that make one number of many."""

from __future__ import annotations

from collections.abc import Callable

from workers.spmd.graph import Node, shape_of
from workers.spmd.rules.labels import as_tuple, chosen, first, labels, without
from workers.spmd.signature import Dims, Signature


def reduction(how: str) -> Callable[[Node], Signature]:
    """``ab -> a``: the reduced dimensions may be split, partial results are combined as ``how``.

    ``how`` is sum, mean, max or min; or "gathered", if the operator runs on whole dimensions.
    """

    def rule(node: Node) -> Signature:
        dims = labels("d", len(shape_of(node.tensors[0])))
        axes = as_tuple(node.argument(1))
        reduced = chosen(dims, axes) if axes else frozenset(dims)
        outputs = (_kept(node, dims, reduced),) * len(node.outputs)
        truncates = how == "mean" and "Int" in node.outputs[0].dtype
        local = without(dims, reduced) if how == "gathered" or truncates else dims
        return Signature((dims,), outputs, first(dims), reduction=how, computed=(local,))

    return rule


def position(node: Node) -> Signature:
    """Argmax and the like: on a slice it would count from the slice's first element."""
    return _extreme(node, generated_anywhere=False)


def position_and_value(node: Node) -> Signature:
    """ArgMaxWithValue: as ``position``, but MindSpore generates a split of any dimension 0."""
    return _extreme(node, generated_anywhere=True)


def _extreme(node: Node, generated_anywhere: bool) -> Signature:
    dims = labels("d", len(shape_of(node.tensors[0])))
    axes = as_tuple(node.argument(1, node.attributes.get("axis", -1)))
    whole = chosen(dims, axes) if axes else frozenset(dims)
    outputs = (_kept(node, dims, whole),) * len(node.outputs)
    batch = first(dims)
    if batch in whole and not generated_anywhere:
        batch = None
    return Signature((dims,), outputs, batch, whole=whole)


def _kept(node: Node, dims: tuple[str, ...], reduced: frozenset[str]) -> Dims:
    """Label the result: reduced dimensions are gone, or of size 1."""
    keep = len(node.outputs[0].shape) == len(dims)
    return tuple(None if x in reduced else x for x in dims if keep or x not in reduced)
