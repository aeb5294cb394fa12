"""Label the fused attention operators: batch, heads and the queries' sequence may be split."""

from __future__ import annotations

from typing import Any

from workers.spmd.attention_masks import layout_name
from workers.spmd.graph import Constant, Node, Operand, Value, is_tensor, shape_of
from workers.spmd.rules.labels import without
from workers.spmd.signature import Dims, Localize, Signature

_QUERY: dict[str, Dims] = {  # input_layout -> labels of the queries, in it
    "BNSD": ("b", "n", "s", None),
    "BSND": ("b", "s", "n", None),
    "BSH": ("b", "s", "n"),
}


def flash_attention(node: Node) -> Signature:
    """FlashAttentionScore: attention, and the statistics of its softmax."""
    statistics = ("b", "n", None, None)
    return _attention(
        node,
        _QUERY[layout_name(node.argument(16))],
        heads=node.argument(10),
        results=(statistics, statistics, (None,)),
        localize=lambda node, outputs: {10: outputs[0][1]},
    )


def prompt_attention(node: Node) -> Signature:
    """PromptFlashAttention: attention, and the numbers of heads of queries and keys."""
    query = _QUERY[layout_name(node.argument(16))]
    heads, key_heads = node.argument(12), node.argument(17)
    place = query.index("n")

    def fewer(node: Node, outputs: tuple[tuple[int, ...], ...]) -> dict[int | str, Any]:
        parts = node.outputs[0].shape[place] // outputs[0][place]
        return {12: heads // parts, 17: key_heads // parts}

    return _attention(node, query, heads, results=(), localize=fewer)


def _attention(
    node: Node, query: Dims, heads: int, results: tuple[Dims, ...], localize: Localize
) -> Signature:
    """Queries and keys meet, so the sequence may be split at rest only."""
    keys = without(query, {"s", "n"} if _one_key_head(node, query) else {"s"})
    extras = tuple(_mask(x) for x in node.inputs[3:] if is_tensor(x))
    inputs = (query, keys, keys, *extras)
    return Signature(
        inputs,
        (*results, without(query, {"s"})),
        batch="b",
        order=tuple(x for x in query if x is not None),
        computed=tuple(without(dims, {"s"}) for dims in inputs),
        localize=localize,
        check=lambda splits, devices: _cut_heads(heads, splits["n"]),
    )


def _one_key_head(node: Node, query: Dims) -> bool:
    """Tell whether all heads share the keys; those are then whole on every device."""
    shape, heads = shape_of(node.tensors[1]), query.index("n")
    return len(shape) == 4 and shape[heads] == 1


def _mask(operand: Operand) -> Dims:
    """Label a mask: (batch, heads or 1, queries, keys), or one matrix for all."""
    assert isinstance(operand, (Value, Constant))
    shape = shape_of(operand)
    if len(shape) != 4:
        return (None,) * len(shape)
    return ("b" if shape[0] > 1 else None, "n" if shape[1] > 1 else None, None, None)


def _cut_heads(heads: int, parts: int) -> str | None:
    """A head is never cut, also where heads and head size share one dimension."""
    return f"its {heads} heads cannot be split {parts} ways" if heads % parts else None
