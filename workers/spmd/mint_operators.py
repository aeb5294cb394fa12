"""Compute operators of ``mindspore.mint`` that a CPU has no kernel for.

They are NumPy's under other names, so NumPy computes most of them. Each function takes what the
operator takes, in its order, and returns all of its results; the caller casts them.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
from mindspore import ops

from workers.tensors import to_tensor

Results = tuple[Any, ...]
_Compute = Callable[..., Any]


def _numpy(compute: _Compute) -> Callable[..., Results]:
    """Return a composition of what computes one array of arrays."""

    def run(*arguments: Any) -> Results:
        given = (x.asnumpy() if hasattr(x, "asnumpy") else x for x in arguments)
        with np.errstate(all="ignore"):  # the logarithm of a negative number is NaN, no more
            found = compute(*given)
        results = found if isinstance(found, tuple) else (found,)
        return tuple(to_tensor(np.array(result)) for result in results)

    return run


def _sorted(x: np.ndarray, dim: int, descending: bool, stable: bool = True) -> Results:
    order = _order(x, dim, descending)
    return np.take_along_axis(x, order, dim), order


def _order(x: np.ndarray, dim: int, descending: bool, stable: bool = True) -> np.ndarray:
    """Return the places of the sorted elements; equal ones keep their order."""
    if not descending:
        return np.argsort(x, dim, kind="stable")
    from_behind = np.argsort(np.flip(x, dim), dim, kind="stable")
    places: np.ndarray = x.shape[dim] - 1 - np.flip(from_behind, dim)
    return places


def _median(x: np.ndarray, dim: int, keepdim: bool) -> Results:
    """Return the lower one of two medians, and where it is."""
    values, places = _sorted(x, dim, False)
    middle = [(x.shape[dim] - 1) // 2]
    found = (np.take(values, middle, dim), np.take(places, middle, dim))
    return found if keepdim else tuple(part.squeeze(dim) for part in found)


def _spread(x: np.ndarray, dim: Any, correction: int, keepdim: bool) -> np.ndarray:
    spread: np.ndarray = np.var(x, dim, ddof=correction, keepdims=keepdim)
    return spread


def _vector_norm(x: np.ndarray, order: float, dim: Any, keepdim: bool, _: Any) -> np.ndarray:
    axes = tuple(range(x.ndim)) if dim is None else dim
    size = np.abs(x)
    if np.isinf(order):
        extreme: np.ndarray = (np.max if order > 0 else np.min)(size, axes, keepdims=keepdim)
        return extreme
    if order == 0:
        return np.asarray(np.count_nonzero(x, axes, keepdims=keepdim))
    total: np.ndarray = np.sum(size**order, axes, keepdims=keepdim) ** (1 / order)
    return total


def _index_add(
    x: np.ndarray, dim: int, index: np.ndarray, source: np.ndarray, alpha: float = 1
) -> np.ndarray:
    total = np.moveaxis(x.copy(), dim, 0)
    np.add.at(total, index, np.moveaxis(source, dim, 0) * np.asarray(alpha, x.dtype))
    return np.moveaxis(total, 0, dim)


def _scatter_add(x: np.ndarray, dim: int, index: np.ndarray, source: np.ndarray) -> np.ndarray:
    total = x.copy()
    places = list(np.indices(index.shape))
    added = source[tuple(slice(size) for size in index.shape)]
    places[dim] = index
    np.add.at(total, tuple(places), added)
    return total


def _batch_norm(
    x: np.ndarray,
    weight: Any,
    bias: Any,
    mean: Any,
    variance: Any,
    training: bool = False,
    momentum: float = 0.1,
    epsilon: float = 1e-5,
) -> Results:
    """Normalise channels, the second dimension, by statistics that are given or the batch's."""
    others = tuple(d for d in range(x.ndim) if d != 1)
    if training or mean is None:
        mean, variance = np.mean(x, others), np.var(x, others)
    rows = (-1, *(1 for _ in others[1:]))
    rstd = 1 / np.sqrt(variance + epsilon)
    y = (x - mean.reshape(rows)) * rstd.reshape(rows)
    y = y if weight is None else y * weight.reshape(rows)
    return (y if bias is None else y + bias.reshape(rows)), mean, rstd


def _convolution(
    x: Any, weight: Any, bias: Any, stride: Any, padding: Any, dilation: Any, groups: int
) -> Results:
    sizes = (_pair(stride), "pad", _pair(padding), _pair(dilation), groups)
    return (ops.conv2d(x, weight, bias, *sizes),)


def _mean_pool(
    x: Any, kernel: Any, stride: Any, padding: Any, ceil: bool, padded: bool, divisor: Any
) -> Results:
    rows, columns = _pair(padding)
    sizes = (_pair(kernel), _pair(stride or kernel), (rows, rows, columns, columns))
    return (ops.avg_pool2d(x, *sizes, ceil, padded, divisor or 0),)


def _max_pool(
    x: Any, kernel: Any, stride: Any, padding: Any, dilation: Any, ceil: bool, *_: Any
) -> Results:
    """MaxPoolWithMask; nobody reads its mask but the gradient."""
    sizes = (_pair(kernel), _pair(stride or kernel), _pair(padding), _pair(dilation))
    return ops.max_pool2d(x, *sizes, ceil_mode=ceil), to_tensor(np.zeros(1, np.int8))


def _bilinear(x: Any, size: Any, scales: Any, corners: bool) -> Results:
    if size is None:
        size = tuple(int(n * scale) for n, scale in zip(x.shape[2:], scales, strict=True))
    return (ops.interpolate(x, tuple(size), mode="bilinear", align_corners=corners),)


def _pair(size: Any) -> tuple[int, int]:
    pair = (size,) if isinstance(size, int) else tuple(size)
    return (pair[0], pair[-1])


def _log_sigmoid(x: np.ndarray) -> Results:
    rest = np.exp(-np.abs(x))
    return np.minimum(x, 0) - np.log1p(rest), rest


MINT: Mapping[str, Callable[..., Results]] = {
    "AcosExt": _numpy(np.arccos),
    "AcoshExt": _numpy(np.arccosh),
    "AdaptiveAvgPool2DExt": lambda x, size: (ops.adaptive_avg_pool2d(x, tuple(size)),),
    "Addbmm": _numpy(lambda x, a, b, beta, alpha: beta * x + alpha * (a @ b).sum(0)),
    "AddcdivExt": _numpy(lambda x, a, b, value: x + value * a / b),
    "AddcmulExt": _numpy(lambda x, a, b, value: x + value * a * b),
    "Addmm": _numpy(lambda x, a, b, beta, alpha: beta * x + alpha * (a @ b)),
    "Addmv": _numpy(lambda x, a, b, beta, alpha: beta * x + alpha * (a @ b)),
    "ArgMinExt": _numpy(lambda x, dim, keepdim: np.argmin(x, dim, keepdims=keepdim)),
    "ArgSort": _numpy(_order),
    "AsinExt": _numpy(np.arcsin),
    "AsinhExt": _numpy(np.arcsinh),
    "Atan2Ext": _numpy(np.arctan2),
    "AtanExt": _numpy(np.arctan),
    "AvgPool2D": _mean_pool,
    "BatchNormExt": _numpy(_batch_norm),
    "BitwiseOrTensor": _numpy(np.bitwise_or),
    "BitwiseXorTensor": _numpy(np.bitwise_xor),
    "Conv2DExt": _convolution,
    "CountNonZero": _numpy(np.count_nonzero),
    "CumminExt": lambda x, dim: ops.cummin(x, dim),
    "Dot": _numpy(np.dot),
    "EluExt": _numpy(lambda x, alpha: np.where(x > 0, x, alpha * np.expm1(np.minimum(x, 0)))),
    "Exp2": _numpy(np.exp2),
    "FmodTensor": _numpy(np.fmod),
    "Frac": _numpy(lambda x: x - np.trunc(x)),
    "FullLike": _numpy(lambda x, value, dtype: np.full(x.shape, value)),
    "Hardtanh": _numpy(lambda x, least, most: np.clip(x, least, most)),
    "IndexAddExt": _numpy(_index_add),
    "IndexSelect": _numpy(lambda x, dim, index: np.take(x, index, dim)),
    "InplaceFillScalar": _numpy(lambda x, value: np.full_like(x, value)),
    "InplaceIndexAddExt": _numpy(_index_add),
    "InplaceMaskedFillScalar": _numpy(lambda x, mask, value: np.where(mask, value, x)),
    "InplaceReLU": _numpy(lambda x: np.maximum(x, 0)),
    "IsNegInf": _numpy(np.isneginf),
    "LeakyReLUExt": _numpy(lambda x, slope: np.where(x > 0, x, slope * x)),
    "LinSpaceExt": _numpy(lambda first, last, steps, dtype: np.linspace(first, last, steps)),
    "LinalgVectorNorm": _numpy(_vector_norm),
    "Log10": _numpy(np.log10),
    "Log2": _numpy(np.log2),
    "LogAddExp": _numpy(np.logaddexp),
    "LogSigmoid": _numpy(_log_sigmoid),
    "LogSumExp": lambda x, dim, keepdim: (ops.logsumexp(x, dim, keepdim),),
    "LpNormV2": _numpy(_vector_norm),
    "MaxPoolWithMask": _max_pool,
    "MedianDim": _numpy(_median),
    "MishExt": lambda x: (ops.mish(x),),
    "Mm": _numpy(np.matmul),
    "Mv": _numpy(np.matmul),
    "Outer": _numpy(np.outer),
    "Repeat": _numpy(np.tile),
    "Roll": _numpy(lambda x, shifts, dims: np.roll(x, shifts, dims or None)),
    "ScatterAddExt": _numpy(_scatter_add),
    "SeLUExt": lambda x: (ops.selu(x),),
    "SortExt": _numpy(_sorted),
    "Std": _numpy(lambda *given: np.sqrt(_spread(*given))),
    "StdMean": _numpy(
        lambda x, dim, correction, keepdim: (
            np.sqrt(_spread(x, dim, correction, keepdim)),
            np.mean(x, dim, keepdims=keepdim),
        )
    ),
    "Take": _numpy(np.take),
    "Threshold": _numpy(lambda x, limit, value: np.where(x <= limit, value, x)),
    "TraceExt": _numpy(np.trace),
    "UpsampleBilinear2D": _bilinear,
    "Var": _numpy(_spread),
    "VarMean": _numpy(
        lambda x, dim, correction, keepdim: (
            _spread(x, dim, correction, keepdim),
            np.mean(x, dim, keepdims=keepdim),
        )
    ),
}
