"""The table of operators: how each may be divided over devices, as MindSpore divides it.

A rule takes a node with its actual shapes and returns its ``Signature``. What MindSpore
refuses is refused, and what it generates for an operator without a strategy follows from
``batch``. An operator that is not in the table runs whole on every rank.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any, Optional

from workers.spmd.graph import Node, shape_of
from workers.spmd.signature import Dims, Localize, Signature

Rule = Callable[[Node], Optional[Signature]]


def rule_of(node: Node) -> Signature | None:
    """Return the signature of a node; None for an operator that the table does not know."""
    rule = RULES.get(node.op)
    return rule(node) if rule is not None else None


def element_wise(node: Node) -> Signature:
    """``ab, ab -> ab`` with NumPy's broadcasting: a dimension of size 1 is never split."""
    output = node.outputs[0].shape
    labels = _labels("d", len(output))
    inputs = tuple(_aligned(shape_of(x), output, labels) for x in node.tensors)
    outputs = tuple(labels for _ in node.outputs)
    return Signature(inputs, outputs, batch=_first(labels), order=labels)


def mat_mul(node: Node) -> Signature | None:
    """``bmk, bkn -> bmn``; the batch dimensions broadcast. Vectors are left to the fallback."""
    left, right = (shape_of(x) for x in node.tensors[:2])
    if min(len(left), len(right)) < 2:
        return None
    output = node.outputs[0].shape
    batch = _labels("b", len(output) - 2)
    row = ("k", "m") if node.argument(2, False) else ("m", "k")
    column = ("n", "k") if node.argument(3, False) else ("k", "n")
    inputs = (
        _aligned(left[:-2], output[:-2], batch) + row,
        _aligned(right[:-2], output[:-2], batch) + column,
    )
    order = (*batch, "m", "k", "n")
    return Signature(inputs, ((*batch, "m", "n"),), batch=order[0], order=order)


def dense(node: Node) -> Signature:
    """``...k, nk, n -> ...n``: the functional linear layer."""
    rows = _labels("b", len(node.outputs[0].shape) - 1)
    inputs = ((*rows, "k"), ("n", "k"), ("n",))[: len(node.tensors)]
    return Signature(
        inputs,
        ((*rows, "n"),),
        batch=_first(rows),
        order=(*rows, "k", "n"),
        gathered=frozenset({"k"}) if len(inputs) == 3 else frozenset(),
    )


def bias_add(node: Node) -> Signature:
    """``nc.., c -> nc..``"""
    labels = _labels("d", len(node.outputs[0].shape))
    channel = labels[-1] if node.argument(2) == 1 else labels[1]
    return Signature((labels, (channel,)), (labels,), batch=labels[0])


def along_axis(node: Node) -> Signature:
    """One tensor in, tensors of the same shape out; the dimensions of ``axis`` stay whole."""
    labels = _labels("d", len(shape_of(node.tensors[0])))
    axes = node.argument(1, node.attributes.get("axis", -1))
    whole = _chosen(labels, _as_tuple(axes))
    return Signature((labels,), (labels,) * len(node.outputs), _first(labels), whole=whole)


def layer_norm(node: Node) -> Signature:
    """Dimensions from ``begin_norm_axis`` on are normalised, and stay whole."""
    x = shape_of(node.tensors[0])
    labels = _labels("d", len(x))
    begin = node.argument(3, -1) % len(x)
    parameters = tuple(labels[len(x) - len(shape_of(p)) :] for p in node.tensors[1:])
    statistics = (_leading(labels, begin),) * len(node.outputs[1:])
    whole = frozenset(labels[begin:])
    return Signature((labels, *parameters), (labels, *statistics), _first(labels), whole=whole)


def rms_norm(node: Node) -> Signature:
    """As ``layer_norm`` over the dimensions that gamma has."""
    labels = _labels("d", len(shape_of(node.tensors[0])))
    begin = len(labels) - len(shape_of(node.tensors[1]))
    outputs = (labels, *(_leading(labels, begin),) * len(node.outputs[1:]))
    return Signature(
        (labels, labels[begin:]), outputs, _first(labels), whole=frozenset(labels[begin:])
    )


def batch_norm(node: Node) -> Signature:
    """``nc.., c, c, c, c -> nc.., c, ...``; the statistics are given, so any split is local."""
    labels = _labels("d", len(shape_of(node.tensors[0])))
    channel = (labels[1],)
    inputs = (labels, *(channel for _ in node.tensors[1:]))
    outputs = tuple(labels if v.shape == node.outputs[0].shape else channel for v in node.outputs)
    return Signature(inputs, outputs, batch=labels[0])


def transpose(node: Node) -> Signature:
    """``abc -> cab``"""
    labels = _labels("d", len(shape_of(node.tensors[0])))
    permuted = tuple(labels[d] for d in node.argument(1))
    return Signature((labels,), (permuted,), batch=_first(labels))


def gather(node: Node) -> Signature:
    """``r.., i.. -> i..``: rows of a table. Split rows are looked up masked, then summed."""
    table, indices = (shape_of(x) for x in node.tensors[:2])
    axis = node.argument(2, 0) % len(table)
    columns = _labels("c", len(table))
    index = _labels("i", len(indices))
    output = (*columns[:axis], *index, *columns[axis + 1 :])
    by_rows = axis == 0 and not node.argument(3, 0)
    return Signature(
        (columns, index),
        (output,),
        batch=_first(index),
        order=(*index, *columns),
        gathered=frozenset() if by_rows else frozenset({columns[axis]}),
        looked_up=columns[0] if by_rows else None,
    )


def conv2d(node: Node) -> Signature:
    """``nchw, ochw -> nohw``; a split channel is contracted, height and width stay whole here."""
    grouped = node.attributes.get("group", 1) != 1
    whole = frozenset({"c", "o"}) if grouped else frozenset()
    return Signature(
        (("n", "c", "h", "w"), ("o", "c", None, None)),
        (("n", "o", "h", "w"),),
        batch="n",
        gathered=whole | {"h", "w"},
        localize=lambda node, outputs: {"out_channel": outputs[0][1]},
    )


def pooling(node: Node) -> Signature:
    """``nchw -> nchw``; windows reach over height and width, which stay whole here."""
    labels = ("n", "c", "h", "w")[: len(shape_of(node.tensors[0]))]
    windowed = frozenset(labels[2:])
    return Signature((labels,), (labels,) * len(node.outputs), "n", gathered=windowed)


def flatten(node: Node) -> Signature:
    """``ab.. -> a(b..)``"""
    labels = _labels("d", len(shape_of(node.tensors[0])))
    return Signature((labels,), ((labels[0], None),), labels[0], whole=frozenset(labels[1:]))


def reduction(how: str) -> Rule:
    """``ab -> a``: the reduced dimensions may be split, partial results are combined as ``how``.

    ``how`` is sum, mean, max or min, or "whole" when partial results cannot be combined.
    """

    def rule(node: Node) -> Signature:
        labels = _labels("d", len(shape_of(node.tensors[0])))
        axes = _as_tuple(node.argument(1))
        reduced = _chosen(labels, axes) if axes else frozenset(labels)
        keep = len(node.outputs[0].shape) == len(labels)
        output: Dims = tuple(
            None if x in reduced else x for x in labels if keep or x not in reduced
        )
        gathered = reduced if how == "whole" else frozenset()
        outputs = (output,) * len(node.outputs)
        return Signature(
            (labels,), outputs, _first(labels), gathered=gathered, reduction=how
        )

    return rule


def concat(node: Node) -> Signature:
    """Several tensors joined along ``axis``, which stays whole."""
    rank = len(node.outputs[0].shape)
    labels = _labels("d", rank)
    axis = node.argument(1, node.attributes.get("axis", 0))
    inputs = tuple(labels for _ in node.tensors)
    return Signature(inputs, (labels,), _first(labels), whole=_chosen(labels, (axis,)))


def split(node: Node) -> Signature:
    """One tensor cut into several along ``axis``, which stays whole."""
    labels = _labels("d", len(shape_of(node.tensors[0])))
    axis = node.argument(1, node.attributes.get("axis", 0))
    outputs = (labels,) * len(node.outputs)
    return Signature((labels,), outputs, _first(labels), whole=_chosen(labels, (axis,)))


def top_k(node: Node) -> Signature:
    """The largest elements of the last dimension, which stays whole."""
    labels = _labels("d", len(shape_of(node.tensors[0])))
    outputs = (labels,) * len(node.outputs)
    return Signature((labels,), outputs, _first(labels), whole=frozenset(labels[-1:]))


def stack(node: Node) -> Signature:
    """Several tensors side by side along a new dimension."""
    labels = _labels("d", len(shape_of(node.tensors[0])))
    axis = node.argument(1, node.attributes.get("axis", 0)) % (len(labels) + 1)
    output: Dims = (*labels[:axis], None, *labels[axis:])
    return Signature(tuple(labels for _ in node.tensors), (output,), _first(labels))


def reshaped(node: Node) -> Signature:
    """ExpandDims, Squeeze, Unsqueeze: dimensions of size 1 come and go, the others stay."""
    source, output = shape_of(node.tensors[0]), node.outputs[0].shape
    labels: Dims = tuple(f"d{d}" if size > 1 else None for d, size in enumerate(source))
    kept = [x for x in labels if x is not None]
    new: Dims = tuple(kept.pop(0) if size > 1 else None for size in output)
    return Signature((labels,), (new,), labels[0] if labels else None)


def strided_slice(node: Node) -> Signature:
    """Dimensions that are cut stay whole; the others keep their split."""
    source, output = shape_of(node.tensors[0]), node.outputs[0].shape
    labels = _labels("d", len(source))
    if len(source) != len(output):
        return Signature((labels,), ((None,) * len(output),), whole=frozenset(labels))
    cut = frozenset(x for x, a, b in zip(labels, source, output, strict=True) if a != b)
    return Signature((labels,), (labels,), _first(labels), whole=cut, localize=_local_end)


def _local_end(node: Node, outputs: tuple[tuple[int, ...], ...]) -> dict[int | str, Any]:
    """Along a kept dimension a slice goes on to the end of what the rank holds."""
    begin, end = node.argument(1), node.argument(2)
    source = shape_of(node.tensors[0])
    local = tuple(
        part if whole == size else stop
        for part, whole, size, stop in zip(
            outputs[0], node.outputs[0].shape, source, (*end, *source[len(end) :]), strict=True
        )
    )
    return {2: local[: len(begin)]}


def output_shape_argument(index: int) -> Localize:
    """The argument at ``index`` is the shape of the result; on a slice, the slice's shape."""
    return lambda node, outputs: {index: outputs[0]}


def broadcast_to(node: Node) -> Signature:
    """``1b -> ab``: new and stretched dimensions stay whole, the others keep their split."""
    labels = _labels("d", len(node.outputs[0].shape))
    source = _aligned(shape_of(node.tensors[0]), node.outputs[0].shape, labels)
    kept = set(source)
    output: Dims = tuple(x if x in kept else None for x in labels)
    return Signature(
        (source,), (output,), _first(source), localize=output_shape_argument(1)
    )


def _labels(prefix: str, count: int) -> tuple[str, ...]:
    return tuple(f"{prefix}{d}" for d in range(count))


def _leading(labels: tuple[str, ...], count: int) -> Dims:
    """Keep the first labels; what is reduced to size 1 behind them is never split."""
    return tuple(label if d < count else None for d, label in enumerate(labels))


def _first(labels: Dims) -> str | None:
    return labels[0] if labels else None


def _as_tuple(axes: Any) -> tuple[int, ...]:
    if axes is None:
        return ()
    return (axes,) if isinstance(axes, int) else tuple(axes)


def _chosen(labels: tuple[str, ...], axes: Iterable[int]) -> frozenset[str]:
    return frozenset(labels[d % len(labels)] for d in axes) if labels else frozenset()


def _aligned(shape: tuple[int, ...], output: tuple[int, ...], labels: tuple[str, ...]) -> Dims:
    """Label a shape that broadcasts to ``output``, from the right."""
    skipped = len(output) - len(shape)
    return tuple(
        None if size == 1 and output[skipped + d] != 1 else labels[skipped + d]
        for d, size in enumerate(shape)
    )


_ELEMENT_WISE = """
    Abs ACos Acosh Add AddExt AddN Adds Addcdiv Addcmul And Asin Asinh AssignAdd Atan Atan2 Atanh
    BitwiseAnd BitwiseOr BitwiseXor Cast Ceil ClampScalar ClampTensor Clip Cos Cosh Div DivMod
    DivNoNan Divs Elu Equal Erf Erfc Erfinv Exp Expm1 FastGeLU Floor FloorDiv FloorMod GeLU GeluExt
    Greater GreaterEqual
    HSigmoid HSwish HardShrink HShrink Inv InvGrad IsFinite IsInf IsNan LeakyReLU LeakyReLUExt
    Lerp Less LessEqual Log Log1p LogicalAnd LogicalNot LogicalOr LogicalXor Masked MaskedFill
    Maximum Minimum Mish Mod Mul MulNoNan Muls Neg NotEqual OnesLike Pow PowScalarTensor
    PowTensorScalar RealDiv Reciprocal ReLU ReLU6 RemainderTensorScalar Rint Round Rsqrt
    Select SeLU Sigmoid Sign SiLU Sin Sinh SoftShrink Softplus SoftplusExt Softsign Sqrt Square
    SquaredDifference Sub SubExt Subs Tan Tanh Trunc TruncateDiv TruncateMod Xdivy Xlogy ZerosLike
    identity
"""

RULES: dict[str, Rule] = {
    **dict.fromkeys(_ELEMENT_WISE.split(), element_wise),
    **dict.fromkeys(("MatMul", "BatchMatMul", "MatMulExt", "BatchMatMulExt"), mat_mul),
    **dict.fromkeys(("Softmax", "LogSoftmax", "CumSum", "Cumsum", "CumsumExt"), along_axis),
    **dict.fromkeys(("ReduceSum", "SumExt"), reduction("sum")),
    **dict.fromkeys(("ReduceMean", "MeanExt"), reduction("mean")),
    **dict.fromkeys(("ReduceMax", "Max"), reduction("max")),
    **dict.fromkeys(("ReduceMin", "Min"), reduction("min")),
    **dict.fromkeys(
        "Argmax ArgMaxExt Argmin ArgMinExt ArgMaxWithValue ArgMinWithValue ReduceProd"
        " ReduceAll ReduceAny ReduceStd".split(),
        reduction("whole"),
    ),
    **dict.fromkeys(("MaxPool", "AvgPool"), pooling),
    **dict.fromkeys(("ExpandDims", "Squeeze", "Unsqueeze"), reshaped),
    "BatchNorm": batch_norm,
    "BiasAdd": bias_add,
    "BroadcastTo": broadcast_to,
    "Concat": concat,
    "Conv2D": conv2d,
    "Dense": dense,
    "Flatten": flatten,
    "Gather": gather,
    "LayerNorm": layer_norm,
    "RmsNorm": rms_norm,
    "Split": split,
    "Stack": stack,
    "StridedSlice": strided_slice,
    "TopK": top_k,
    "Transpose": transpose,
}
