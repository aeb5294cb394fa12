"""Label the operators that work element by element, or along some dimensions of one tensor."""

from __future__ import annotations

from dataclasses import replace

from workers.spmd.graph import Node, shape_of
from workers.spmd.rules.labels import aligned, as_tuple, chosen, first, labels, leading, without
from workers.spmd.signature import Signature


def element_wise(node: Node) -> Signature:
    """``ab, ab -> ab`` with NumPy's broadcasting: a dimension of size 1 is never split."""
    output = node.outputs[0].shape
    dims = labels("d", len(output))
    inputs = tuple(aligned(shape_of(x), output, dims) for x in node.tensors)
    outputs = tuple(dims for _ in node.outputs)
    return Signature(inputs, outputs, batch=first(dims), order=dims)


def along_axis(node: Node) -> Signature:
    """One tensor in, tensors of its rank out; the dimensions of ``axis`` stay whole."""
    dims = labels("d", len(shape_of(node.tensors[0])))
    axes = node.argument(1, node.attributes.get("axis", -1))
    return _along(node, dims, as_tuple(axes))


def _along(node: Node, dims: tuple[str, ...], axes: tuple[int, ...]) -> Signature:
    outputs = (dims,) * len(node.outputs)
    return Signature((dims,), outputs, first(dims), whole=chosen(dims, axes))


def cumulative(node: Node) -> Signature:
    """As ``along_axis``, but MindSpore generates no strategy that splits the axis."""
    dims = labels("d", len(shape_of(node.tensors[0])))
    axis = as_tuple(node.argument(1, node.attributes.get("axis", 0)))
    whole = chosen(dims, axis)
    batch = first(dims) if first(dims) not in whole else None
    return Signature((dims,), (dims,) * len(node.outputs), batch, whole=whole)


def swiglu(node: Node) -> Signature:
    """Half of ``dim`` gates the other half: that dimension stays whole."""
    dims = labels("d", len(shape_of(node.tensors[0])))
    return _along(node, dims, (node.argument(1, -1),))


def rotary(node: Node) -> Signature:
    """RotaryPositionEmbedding: element-wise, but the last dimension is turned as a whole."""
    found = element_wise(node)
    return replace(found, whole=frozenset(x for x in found.outputs[0][-1:] if x is not None))


def top_k(node: Node) -> Signature:
    """The largest elements of the last dimension, which stays whole."""
    return _along(node, labels("d", len(shape_of(node.tensors[0]))), (-1,))


def triangle(node: Node) -> Signature:
    """Tril, Triu: where an element lies in its matrix decides, so matrices are gathered."""
    dims = labels("d", len(shape_of(node.tensors[0])))
    local = leading(dims, len(dims) - 2)
    return Signature((dims,), (local,), first(dims), computed=(local,))


def by_channel(node: Node) -> Signature:
    """PReLU: ``nc.., c -> nc..``, or one number for all channels."""
    dims = labels("d", len(node.outputs[0].shape))
    channels = shape_of(node.tensors[1])
    channel = dims[1] if len(dims) > 1 and channels != (1,) else None
    return Signature((dims, (channel,)), (dims,), first(dims))


def layer_norm(node: Node) -> Signature:
    """Dimensions from ``begin_norm_axis`` on are normalised, and stay whole."""
    return _normalised(node, node.argument(3, -1) % len(shape_of(node.tensors[0])))


def layer_norm_ext(node: Node) -> Signature:
    """As ``layer_norm``, with the shape of the normalised dimensions."""
    return _normalised(node, len(shape_of(node.tensors[0])) - len(node.argument(1)))


def _normalised(node: Node, begin: int) -> Signature:
    dims = labels("d", len(shape_of(node.tensors[0])))
    parameters = tuple(dims[len(dims) - len(shape_of(p)) :] for p in node.tensors[1:])
    statistics = (leading(dims, begin),) * len(node.outputs[1:])
    whole = frozenset(dims[begin:])
    return Signature((dims, *parameters), (dims, *statistics), first(dims), whole=whole)


def rms_norm(node: Node) -> Signature:
    """Dimensions that gamma has are normalised; they may be split, and are gathered."""
    dims = labels("d", len(shape_of(node.tensors[0])))
    begin = len(dims) - len(shape_of(node.tensors[-1]))
    rows, gamma = leading(dims, begin), dims[begin:]
    summands = tuple(dims for _ in node.tensors[:-1])  # AddRmsNorm has two
    return Signature(
        (*summands, gamma),
        (rows,) * len(node.outputs),
        first(dims),
        computed=(*(rows for _ in summands), (None,) * len(gamma)),
    )


def batch_norm(node: Node) -> Signature:
    """``nc.., c, c, c, c -> nc.., c, ...``; the statistics are given, so any split is local."""
    dims = labels("d", len(shape_of(node.tensors[0])))
    channel = (dims[1],)
    inputs = (dims, *(channel for _ in node.tensors[1:]))
    training = bool(node.argument(5, node.attributes.get("is_training", False)))
    local = without(dims, set(dims) - {dims[1]}) if training else dims
    outputs = tuple(local if v.shape == node.outputs[0].shape else channel for v in node.outputs)
    return Signature(inputs, outputs, batch=dims[0], computed=(local, *inputs[1:]))
