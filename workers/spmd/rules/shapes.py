"""Label the operators that move, cut, join or repeat elements."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

from workers.spmd.graph import Node, shape_of
from workers.spmd.rules.labels import aligned, chosen, first, labels
from workers.spmd.signature import Dims, Localize, Signature


def transpose(node: Node) -> Signature:
    """``abc -> cab``"""
    dims = labels("d", len(shape_of(node.tensors[0])))
    return Signature((dims,), (tuple(dims[d] for d in node.argument(1)),), first(dims))


def flattened(node: Node) -> Signature:
    """``ab.. -> a(b..)``"""
    dims = labels("d", len(shape_of(node.tensors[0])))
    return Signature((dims,), ((dims[0], None),), dims[0], whole=frozenset(dims[1:]))


def reshaped(node: Node) -> Signature:
    """ExpandDims, Squeeze: dimensions of size 1 come and go, the others stay."""
    source, output = shape_of(node.tensors[0]), node.outputs[0].shape
    dims: Dims = tuple(f"d{d}" if size > 1 else None for d, size in enumerate(source))
    kept = [x for x in dims if x is not None]
    new: Dims = tuple(kept.pop(0) if size > 1 else None for size in output)
    return Signature((dims,), (new,), first(dims))


def concat(node: Node) -> Signature:
    """Several tensors joined along ``axis``, which stays whole."""
    dims = labels("d", len(node.outputs[0].shape))
    whole = chosen(dims, (node.argument(1, node.attributes.get("axis", 0)),))
    inputs = tuple(dims for _ in node.tensors)
    return Signature(inputs, (dims,), _unless_whole(dims, whole), whole=whole)


def split(axis_argument: int) -> Callable[[Node], Signature]:
    """One tensor cut into several along ``axis``, which stays whole."""

    def rule(node: Node) -> Signature:
        dims = labels("d", len(shape_of(node.tensors[0])))
        axis = node.argument(axis_argument, node.attributes.get("axis", 0))
        whole = chosen(dims, (axis,))
        outputs = (dims,) * len(node.outputs)
        return Signature((dims,), outputs, _unless_whole(dims, whole), whole=whole)

    return rule


def stack(node: Node) -> Signature:
    """Several tensors side by side along a new dimension."""
    dims = labels("d", len(shape_of(node.tensors[0])))
    axis = node.argument(1, node.attributes.get("axis", 0)) % (len(dims) + 1)
    output: Dims = (*dims[:axis], None, *dims[axis:])
    return Signature(tuple(dims for _ in node.tensors), (output,), first(dims))


def unstack(node: Node) -> Signature:
    """One tensor taken apart along ``axis``, which stays whole."""
    dims = labels("d", len(shape_of(node.tensors[0])))
    axis = node.attributes.get("axis", node.argument(1, 0)) % len(dims)
    output = dims[:axis] + dims[axis + 1 :]
    whole = frozenset({dims[axis]})
    return Signature((dims,), (output,) * len(node.outputs), first(dims), whole=whole)


def strided_slice(node: Node) -> Signature:
    """Dimensions that are cut stay whole; the others keep their split."""
    spans = _spans(node)
    dims = labels("d", len(shape_of(node.tensors[0])))
    local = {span.dim: span.full and span.stride == 1 for span in spans}
    output: Dims = tuple(
        dims[span.dim] if span.dim is not None and local[span.dim] else None
        for span in spans
        if not span.shrunk
    )
    whole = frozenset(dims[d] for d, full in local.items() if d is not None and not full)
    starts_full = any(span.dim == 0 and span.full for span in spans)
    return Signature((dims,), (output,), first(dims) if starts_full else None, whole=whole)


class _Span(NamedTuple):
    """What StridedSlice does with one dimension."""

    dim: int | None  # of its input; None for a new dimension of size 1
    full: bool = True  # from the first element to the last
    stride: int = 1
    shrunk: bool = False  # one element is taken, and the dimension dropped


def _spans(node: Node) -> list[_Span]:
    """Read begin, end, strides and the five masks, one span for each dimension in or out."""
    shape = shape_of(node.tensors[0])
    begin, end, strides = (node.argument(i) for i in (1, 2, 3))
    names = ("begin_mask", "end_mask", "ellipsis_mask", "new_axis_mask", "shrink_axis_mask")
    masks = [node.argument(4 + i, node.attributes.get(n, 0)) for i, n in enumerate(names)]
    begin_mask, end_mask, ellipsis, new, shrink = masks
    added = sum(1 for i in range(len(begin)) if new >> i & 1)
    spans: list[_Span] = []
    dim = 0
    for i, (start, stop, stride) in enumerate(zip(begin, end, strides, strict=True)):
        if ellipsis >> i & 1:
            covered = len(shape) - (len(begin) - added - 1)
            spans += [_Span(d) for d in range(dim, dim + covered)]
            dim += covered
        elif new >> i & 1:
            spans.append(_Span(None))
        else:
            full = (start == 0 or begin_mask >> i & 1) and (
                stop >= shape[dim] or end_mask >> i & 1
            )
            shrunk = bool(shrink >> i & 1)
            spans.append(_Span(dim, bool(full) and not shrunk, stride, shrunk))
            dim += 1
    return spans + [_Span(d) for d in range(dim, len(shape))]


def slice_(node: Node) -> Signature:
    """As ``strided_slice``, with a begin and a size for each dimension."""
    shape, begin = shape_of(node.tensors[0]), node.argument(1)
    dims = labels("d", len(shape))
    whole = frozenset(
        label
        for label, start, size, part in zip(
            dims, begin, shape, node.outputs[0].shape, strict=True
        )
        if start or size != part
    )
    return Signature(
        (dims,),
        (dims,),
        _unless_whole(dims, whole),
        whole=whole,
        localize=output_shape_argument(2),
    )


def slice_ext(node: Node) -> Signature:
    """Cut one dimension, which stays whole."""
    dims = labels("d", len(shape_of(node.tensors[0])))
    whole = chosen(dims, (node.argument(1, 0),))
    return Signature((dims,), (dims,), _unless_whole(dims, whole), whole=whole)


def output_shape_argument(index: int) -> Localize:
    """The argument at ``index`` is the shape of the result; on a slice, the slice's shape."""
    return lambda node, outputs: {index: outputs[0]}


def broadcast_to(node: Node) -> Signature:
    """``1b -> ab``: new and stretched dimensions stay whole, the others keep their split."""
    dims = labels("d", len(node.outputs[0].shape))
    source = aligned(shape_of(node.tensors[0]), node.outputs[0].shape, dims)
    output: Dims = tuple(x if x in source else None for x in dims)
    return Signature(
        (source,), (output,), first(source), localize=output_shape_argument(1)
    )


def tile(node: Node) -> Signature:
    """A dimension that is repeated is split by its repetitions; its strategy names every output.

    MindSpore generates a split that divides the input, and then asks that it divides the
    repetitions (tile_info.cc).
    """
    shape, multiples = shape_of(node.tensors[0]), node.argument(1)
    dims = labels("d", len(multiples))
    padded = (1,) * (len(multiples) - len(shape)) + shape
    source = tuple(None if m > 1 else x for x, m in zip(dims, multiples, strict=True))
    divided = tuple(m if m > 1 else size for m, size in zip(multiples, padded, strict=True))

    def local(node: Node, outputs: tuple[tuple[int, ...], ...]) -> dict[int | str, Any]:
        sizes = zip(outputs[0], padded, multiples, strict=True)
        return {1: tuple(out // size if m > 1 else 1 for out, size, m in sizes)}

    return Signature(
        (source[len(multiples) - len(shape) :],),
        (dims,),
        first(dims),
        order=dims,
        entries=((dims, divided),),
        batch_sizes=shape[:1] if len(shape) == len(multiples) else (),
        localize=local,
    )


def one_hot(node: Node) -> Signature:
    """The strategy names the result, with its new dimension, which is made whole here."""
    shape, output = shape_of(node.tensors[0]), node.outputs[0].shape
    rows = labels("i", len(shape))
    axis = node.argument(4, node.attributes.get("axis", -1)) % len(output)
    result = (*rows[:axis], "depth", *rows[axis:])
    scalars = tuple(((), ()) for _ in node.tensors[1:])
    only_rows = len(shape) > 1
    return Signature(
        (rows, *(() for _ in scalars)),
        (tuple(None if x == "depth" else x for x in result),),
        batch=result[0],
        order=(*rows, "depth"),
        whole=frozenset((*rows[1:], "depth")) if only_rows else frozenset(),
        entries=((result, output), *scalars),
        batch_sizes=shape[:1],
        all_or_none=True,
    )


def _unless_whole(dims: tuple[str, ...], whole: frozenset[str]) -> str | None:
    """Where MindSpore sees to it that a generated strategy leaves ``whole`` alone."""
    return first(dims) if first(dims) not in whole else None
