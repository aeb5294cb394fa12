"""Label the operators that multiply: matrix products, linear layers, convolutions."""

from __future__ import annotations

import math

from workers.spmd.graph import Node, shape_of
from workers.spmd.rules.labels import aligned, first, labels, without
from workers.spmd.signature import Signature, Splits


def mat_mul(node: Node) -> Signature | None:
    """``bmk, bkn -> bmn``; the batch dimensions broadcast. A vector has no rule."""
    left, right = (shape_of(x) for x in node.tensors[:2])
    if min(len(left), len(right)) < 2:
        return None
    output = node.outputs[0].shape
    batch = labels("b", len(output) - 2)
    row = ("k", "m") if node.argument(2, False) else ("m", "k")
    column = ("n", "k") if node.argument(3, False) else ("k", "n")
    one_sided = len(left) == len(right) > 2 and left[0] != right[0]
    return Signature(
        (
            aligned(left[:-2], output[:-2], batch) + row,
            aligned(right[:-2], output[:-2], batch) + column,
        ),
        ((*batch, "m", "n"),),
        batch=None if one_sided else (*batch, "m")[0],
        order=(*batch, "m", "k", "n"),
        scatter="k",
    )


def gathered_mat_mul(node: Node) -> Signature:
    """``rc, rc -> rc``: factors cut alike over all devices; each gathers what it multiplies."""
    alike = ("r", "c")
    return Signature((alike, alike), (alike,), "r", computed=(("r", None), (None, "c")))


def is_cut_alike(node: Node, devices: int) -> bool:
    """Tell whether MindSpore takes a product for a ``gathered_mat_mul``."""
    strategy = node.attributes.get("in_strategy")
    transposed = node.argument(2, False) or node.argument(3, False)
    if not strategy or transposed or len(strategy) != 2 or strategy[0] != strategy[1]:
        return False
    used: int = math.prod(strategy[0])
    return len(strategy[0]) == 2 and used == devices > 1


def dense(node: Node) -> Signature:
    """``...k, nk, n -> ...n``: the functional linear layer."""
    rows = labels("b", len(node.outputs[0].shape) - 1)
    inputs = ((*rows, "k"), ("n", "k"), ("n",))[: len(node.tensors)]
    computed = tuple(without(dims, {"k"}) for dims in inputs)
    return Signature(inputs, ((*rows, "n"),), first(rows), computed=computed)


def bias_add(node: Node) -> Signature:
    """``nc.., c -> nc..``"""
    dims = labels("d", len(node.outputs[0].shape))
    channel = dims[-1] if node.argument(2) == 1 else dims[1]
    return Signature((dims, (channel,)), (dims,), batch=dims[0])


def conv2d(node: Node) -> Signature:
    """``nchw, ochw -> nohw``; height and width are gathered, since windows reach over them."""
    image, kernel = ("n", "c", "h", "w"), ("o", "c", None, None)
    grouped = node.attributes.get("group", 1) != 1
    return Signature(
        (image, kernel),
        (("n", "o", None, None),),
        batch="n",
        order=("n", "c", "h", "w", "o"),
        whole=frozenset({"c", "o"}) if grouped else frozenset(),
        computed=(without(image, "hw"), kernel),
        localize=lambda node, outputs: {"out_channel": outputs[0][1]},
        check=lambda splits, devices: _windows_fit(node, splits),
    )


def pooling(node: Node) -> Signature:
    """``nchw -> nchw``; height and width are gathered, since windows reach over them."""
    dims = ("n", "c", "h", "w")[: len(shape_of(node.tensors[0]))]
    local = without(dims, "hw")
    return Signature(
        (dims,),
        (local,) * len(node.outputs),
        "n",
        computed=(local,),
        check=lambda splits, devices: _windows_fit(node, splits),
    )


def _windows_fit(node: Node, splits: Splits) -> str | None:
    """Say why height or width cannot be split: MindSpore exchanges borders in some cases only."""
    convolution = node.op == "Conv2D"
    kernel = _last_two(node.attributes.get("kernel_size", node.argument(1)))
    name = "stride" if convolution else "strides"
    stride = _last_two(node.attributes.get(name, node.argument(2)))
    padded = convolution and node.attributes.get("pad_mode") != "valid"
    for place, label in enumerate("hw"):
        parts = splits.get(label, 1)
        if parts == 1:
            continue
        size, out = shape_of(node.tensors[0])[2 + place], node.outputs[0].shape[2 + place]
        side = ("height", "width")[place]
        if out % parts:
            return f"the {side} of its result, {out}, is not divisible by the split {parts}"
        if kernel[place] > stride[place] and not padded:
            return f"the {side} cannot be split, because windows overlap (kernel_size > stride)"
        if kernel[place] <= stride[place] and (size // parts) % stride[place]:
            return f"a slice of the {side}, {size // parts}, is not divisible by the stride"
    return None


def _last_two(sizes: int | tuple[int, ...]) -> tuple[int, int]:
    """Return what is said of height and width, by one number, two, or one per dimension."""
    pair = (sizes, sizes) if isinstance(sizes, int) else sizes[-2:]
    return (pair[0], pair[-1])
