"""Compute operators that only Ascend has, out of operators that a CPU has.

Each function takes what the operator takes, in its order, and returns all of its results. Half
floats arrive as float32, and the caller casts the results back: Ascend computes inside such
operators with float32, too.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import mindspore
import numpy as np
from mindspore import ops
from mindspore._c_expression.typing import type_id_to_type

from workers.spmd.attention_masks import attention_mask, layout_name
from workers.spmd.graph import Node, shape_of
from workers.spmd.mint_operators import MINT

Results = tuple[Any, ...]


def rms_norm(x: Any, gamma: Any, epsilon: float = 1e-6) -> Results:
    """RmsNorm: divide by the root of the mean square over the dimensions of gamma."""
    axes = tuple(range(x.ndim - gamma.ndim, x.ndim))
    rstd = ops.rsqrt(ops.mean(ops.square(x), axes, True) + epsilon)
    return x * rstd * gamma, rstd


def layer_norm(x: Any, shape: Any, weight: Any, bias: Any, epsilon: float = 1e-5) -> Results:
    """LayerNormExt: normalise the last dimensions."""
    axes = tuple(range(x.ndim - len(shape), x.ndim))
    mean = ops.mean(x, axes, True)
    rstd = ops.rsqrt(ops.mean(ops.square(x - mean), axes, True) + epsilon)
    y = (x - mean) * rstd
    y = y if weight is None else y * weight
    return (y if bias is None else y + bias), mean, rstd


def swiglu(x: Any, dim: int = -1) -> Results:
    """Swiglu: SiLU of the first half of ``dim``, times the second half."""
    gate, up = _halves(x, dim)
    return (gate * ops.sigmoid(gate) * up,)


def gelu(x: Any, approximate: Any = 0) -> Results:
    """GeluExt: exact, or approximated by tanh."""
    by_tanh = approximate in (1, "tanh")
    return (ops.gelu(x, approximate="tanh" if by_tanh else "none"),)


def rotary_embedding(x: Any, cos: Any, sin: Any, mode: int = 0) -> Results:
    """RotaryPositionEmbedding: mode 0 rotates halves against each other, mode 1 neighbours."""
    return (x * cos + (_rotated_neighbours(x) if mode else _rotated_halves(x)) * sin,)


def apply_rotary(
    query: Any, key: Any, cos: Any, sin: Any, position_ids: Any, cos_format: int = 0
) -> Results:
    """ApplyRotaryPosEmb: rotate queries and keys (batch, sequence, heads * size).

    ``cos`` and ``sin`` have a row of one head's size for each position; formats 2 and 3 hold one
    for each token already, 1 and 3 take neighbours instead of halves.
    """
    head = cos.shape[-1]

    def rows(table: Any) -> Any:
        if cos_format >= 2 or table.shape[0] == query.shape[0]:
            return table.reshape(-1, 1, head)
        return ops.gather(table, position_ids.reshape(-1), 0).reshape(-1, 1, head)

    def rotated(x: Any) -> Any:
        heads = x.reshape(-1, x.shape[-1] // head, head)
        turned = _rotated_neighbours(heads) if cos_format % 2 else _rotated_halves(heads)
        return (heads * _over(rows(cos), heads) + turned * _over(rows(sin), heads)).reshape(x.shape)

    return rotated(query), rotated(key)


def flash_attention(
    query: Any,
    key: Any,
    value: Any,
    real_shift: Any,
    drop_mask: Any,
    padding_mask: Any,
    attn_mask: Any,
    prefix: Any,
    actual_seq_qlen: Any,
    actual_seq_kvlen: Any,
    head_num: int,
    keep_prob: float,
    scale_value: float,
    pre_tokens: int,
    next_tokens: int,
    inner_precise: int,
    input_layout: Any,
    sparse_mode: int,
) -> Results:
    """FlashAttentionScore: attention whose mask says what to leave out."""
    layout = layout_name(input_layout)
    q, k, v = (_heads_first(x, layout, n) for x, n in _with_heads(query, key, value, head_num))
    mask = attention_mask(attn_mask, q.shape[2], k.shape[2], sparse_mode, pre_tokens, next_tokens)
    answer, largest, total = _attention(q, k, v, scale_value, real_shift, mask)
    spread = (1, 1, 1, 8)  # Ascend repeats its statistics eight times
    return (
        ops.tile(largest, spread),
        ops.tile(total, spread),
        mindspore.Tensor(np.zeros(1, np.float32)),
        _as_it_came(answer, layout),
    )


def prompt_attention(query: Any, key: Any, value: Any, attn_mask: Any, *rest: Any) -> Results:
    """PromptFlashAttention: attention over a whole prompt."""
    (lengths, shift), numbers = (rest[1], rest[2]), rest[-8:]
    heads, scale, before, after, layout_number, kv_heads, sparse_mode, _ = numbers
    layout = layout_name(layout_number)
    q = _heads_first(query, layout, heads)
    k, v = (_heads_first(x, layout, kv_heads or heads) for x in (key, value))
    mask = attention_mask(attn_mask, q.shape[2], k.shape[2], sparse_mode, before, after)
    answer, _, _ = _attention(q, k, v, scale, shift, _beyond(lengths, k.shape[2], mask))
    return (_as_it_came(answer, layout),)


def incremental_attention(query: Any, key: Any, value: Any, attn_mask: Any, *rest: Any) -> Results:
    """IncreFlashAttention: one new token that looks back at all before it."""
    lengths, shift = rest[0], rest[1]
    heads, layout_number, scale, kv_heads = rest[-6:-2]
    layout = layout_name(layout_number)
    keys, values = (x[0] if isinstance(x, (tuple, list)) else x for x in (key, value))
    q = _heads_first(query, layout, heads)
    k, v = (_heads_first(x, layout, kv_heads or heads) for x in (keys, values))
    mask = attention_mask(attn_mask, 1, k.shape[2], 1)
    answer, _, _ = _attention(q, k, v, scale, shift, _beyond(lengths, k.shape[2], mask))
    return (_as_it_came(answer, layout),)


def top_k(x: Any, k: int, dim: int = -1, largest: bool = True, in_order: bool = True) -> Results:
    """TopkExt: the largest or smallest elements of any dimension, and where they are."""
    values, places = ops.topk(x, k, dim, largest, in_order)
    return values, places.astype(mindspore.int64)


def cumulative_sum(x: Any, dim: int, dtype: Any = None) -> Results:
    """CumsumExt."""
    return (ops.cumsum(_as_type(x, dtype), dim),)


def product(x: Any, dim: int | None = None, keepdim: bool = False, dtype: Any = None) -> Results:
    """ProdExt: its CPU kernel runs in compiled graphs only."""
    return (ops.prod(_as_type(x, dtype), dim, keepdim),)


def stack(tensors: Any, dim: int = 0) -> Results:
    """StackExt."""
    return (ops.stack(tensors, dim),)


def lower_triangle(x: Any, diagonal: int = 0) -> Results:
    """TrilExt."""
    return (ops.tril(x, diagonal),)


def repeat_elements(x: Any, repeats: int, dim: int | None = None, size: Any = None) -> Results:
    """RepeatInterleaveInt: every element several times, side by side."""
    flat = x.reshape(-1) if dim is None else x
    return (ops.repeat_elements(flat, repeats, (dim or 0) % flat.ndim),)


def batch_mat_mul(left: Any, right: Any, transpose_a: bool, transpose_b: bool) -> Results:
    """BatchMatMul whose batch dimensions are broadcast."""
    left = ops.swapaxes(left, -1, -2) if transpose_a else left
    right = ops.swapaxes(right, -1, -2) if transpose_b else right
    return (ops.matmul(left, right),)


COMPOSED: Mapping[str, Callable[..., Results]] = {
    "ApplyRotaryPosEmb": apply_rotary,
    "CumsumExt": cumulative_sum,
    "FlashAttentionScore": flash_attention,
    "GeluExt": gelu,
    "IncreFlashAttention": incremental_attention,
    "LayerNormExt": layer_norm,
    "ProdExt": product,
    "PromptFlashAttention": prompt_attention,
    "RepeatInterleaveInt": repeat_elements,
    "RmsNorm": rms_norm,
    "RotaryPositionEmbedding": rotary_embedding,
    "StackExt": stack,
    "Swiglu": swiglu,
    "TopkExt": top_k,
    "TrilExt": lower_triangle,
}


def composition_of(node: Node) -> Callable[..., Results] | None:
    """Return what computes a node; None for an operator that a CPU has."""
    if node.op == "BatchMatMul":
        left, right = (shape_of(x)[:-2] for x in node.tensors)
        return batch_mat_mul if left != right else None
    return COMPOSED.get(node.op) or MINT.get(node.op)


def _attention(
    q: Any, k: Any, v: Any, scale: float, shift: Any, mask: Any
) -> tuple[Any, Any, Any]:
    """Return attention, and the maximum and the sum of its exponentials, heads before rows."""
    copies = q.shape[1] // k.shape[1]  # several query heads may share a key head
    if copies > 1:
        k, v = (ops.repeat_elements(x, copies, 1) for x in (k, v))
    scores = ops.matmul(q, ops.transpose(k, (0, 1, 3, 2)))
    scores = (scores if shift is None else scores + shift) * scale
    if mask is not None:
        scores = ops.masked_fill(scores, mindspore.Tensor(mask), -1e30)
    largest = ops.amax(scores, -1, True)
    weights = ops.exp(scores - largest)
    total = ops.sum(weights, -1, True)
    return ops.matmul(weights / total, v), largest, total


def _with_heads(query: Any, key: Any, value: Any, heads: int) -> tuple[tuple[Any, int], ...]:
    """Pair queries, keys and values with their number of heads; keys may have fewer."""
    size = query.shape[-1] // heads
    of_keys = key.shape[-1] // size if query.ndim == 3 else heads
    return (query, heads), (key, of_keys), (value, of_keys)


def _heads_first(x: Any, layout: str, heads: int) -> Any:
    """Bring queries, keys or values into (batch, heads, sequence, size)."""
    if layout == "BNSD":
        return x
    if layout == "BSH":
        x = x.reshape(x.shape[0], x.shape[1], heads, -1)
    return ops.transpose(x, (0, 2, 1, 3))


def _as_it_came(answer: Any, layout: str) -> Any:
    """Undo ``_heads_first``."""
    if layout == "BNSD":
        return answer
    rows = ops.transpose(answer, (0, 2, 1, 3))
    return rows.reshape(*rows.shape[:2], -1) if layout == "BSH" else rows


def _beyond(lengths: Any, keys: int, mask: np.ndarray | None) -> np.ndarray | None:
    """Mask the keys behind each sequence's actual length as well."""
    if lengths is None:
        return mask
    sizes = lengths.asnumpy() if isinstance(lengths, mindspore.Tensor) else np.asarray(lengths)
    padding = np.arange(keys) >= sizes.reshape(-1, 1, 1, 1)
    return padding if mask is None else padding | mask


def _as_type(x: Any, number: int | None) -> Any:
    """Cast to a type that MindSpore names by its number: int8 must not add up in int8."""
    return x if number is None else x.astype(type_id_to_type(number))


def _halves(x: Any, dim: int) -> tuple[Any, Any]:
    first, second = ops.split(x, x.shape[dim] // 2, dim)
    return first, second


def _rotated_halves(x: Any) -> Any:
    first, second = _halves(x, -1)
    return ops.cat((-second, first), -1)


def _rotated_neighbours(x: Any) -> Any:
    pairs = x.reshape(*x.shape[:-1], -1, 2)
    return ops.stack((-pairs[..., 1], pairs[..., 0]), -1).reshape(x.shape)


def _over(rows: Any, heads: Any) -> Any:
    """Repeat the rows of a sequence for every sequence of the batch."""
    if rows.shape[0] in (1, heads.shape[0]):
        return rows
    return ops.tile(rows, (heads.shape[0] // rows.shape[0], 1, 1))
