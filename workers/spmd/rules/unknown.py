"""Label operators that the table does not know: their parameters are divided, nothing else is."""

from __future__ import annotations

from workers.spmd.graph import Node, shape_of
from workers.spmd.rules.labels import first, labels
from workers.spmd.signature import Dims, Signature, laid_flat


def unknown(node: Node) -> Signature:
    """Return labels by which the operands rest divided; it is computed on whole tensors.

    Dimensions in the same place that a strategy splits alike share their devices, as they do in
    element-wise operators.
    """
    shapes = [shape_of(x) for x in node.tensors]
    strategy = node.attributes.get("in_strategy")
    given = laid_flat(strategy, tuple) if strategy else []
    entries = [*given, *((1,) * len(shape) for shape in shapes[len(given) :])]
    inputs: list[Dims] = []
    for number, (shape, entry) in enumerate(zip(shapes, entries, strict=False)):
        own = "" if number == 0 or given else f"of{number}"
        places = range(len(shape))
        inputs.append(tuple(f"d{d}x{entry[d] if d < len(entry) else 1}{own}" for d in places))
    return _computed_whole(node, tuple(inputs))


def self_defined(node: Node) -> Signature:
    """An operator with ``self_define_shard``: the user's layouts hold, whatever they are."""
    shapes = enumerate(shape_of(x) for x in node.tensors)
    return _computed_whole(node, tuple(labels(f"i{n}d", len(shape)) for n, shape in shapes))


def _computed_whole(node: Node, inputs: tuple[Dims, ...]) -> Signature:
    return Signature(
        inputs,
        tuple((None,) * len(value.shape) for value in node.outputs),
        batch=first(inputs[0]) if inputs else None,
        computed=tuple((None,) * len(dims) for dims in inputs),
        known=False,
    )
