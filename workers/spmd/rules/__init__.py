"""The rules: how each operator may be divided over devices, as MindSpore divides it.

A rule takes a node with its actual shapes and returns its ``Signature``: one small function for a
family of operators, listed in ``table``. What MindSpore refuses is refused, and what it generates
for an operator without a strategy follows from ``batch``.
"""

from __future__ import annotations

from dataclasses import replace

from workers.spmd.graph import Node, shape_of
from workers.spmd.rules.labels import without
from workers.spmd.rules.mindspore import HAS_RULE, TAKES_LAYOUT
from workers.spmd.rules.products import gathered_mat_mul, is_cut_alike
from workers.spmd.rules.table import RULES
from workers.spmd.rules.unknown import self_defined, unknown
from workers.spmd.signature import Signature

__all__ = ["RULES", "rule_of"]


def rule_of(node: Node, devices: int) -> Signature:
    """Return the signature of a node; one that only divides parameters if no rule knows it."""
    if node.attributes.get("self_define_shard"):
        return self_defined(node)
    if node.sized_by_data:
        return _at_work_whole(node)
    if node.op in ("MatMul", "MatMulExt") and is_cut_alike(node, devices):
        return gathered_mat_mul(node)
    rule = RULES.get(node.op)
    signature = (rule(node) if rule else None) or unknown(node)
    if node.op not in HAS_RULE:
        return _in_data_parallel(node, signature)
    return replace(signature, takes_layout=node.op in TAKES_LAYOUT)


def _at_work_whole(node: Node) -> Signature:
    """Divide parameters as a strategy says, and run on whole tensors: there is no size to split."""
    rule = RULES.get(node.op) if node.attributes.get("in_strategy") else None
    found = (rule(node) if rule else None) or unknown(node)
    return replace(
        found,
        batch=None,
        computed=tuple((None,) * len(dims) for dims in found.inputs),
        outputs=tuple((None,) * len(value.shape) for value in node.outputs),
        looked_up=None,
        localize=None,
        known=False,
    )


def _in_data_parallel(node: Node, signature: Signature) -> Signature:
    """Divide what MindSpore has no rule for as it does: all rows over all devices, or nothing.

    MindSpore does this also where it is wrong, to an Unstack of dimension 0 say; here such
    dimensions are gathered before the operator runs.
    """
    rested, result = signature.inputs, node.outputs[0].shape
    shape = shape_of(node.tensors[0]) if rested else ()
    splits = bool(shape and result and rested[0][0])
    return replace(
        signature,
        inputs=(*rested[:1], *((None,) * len(dims) for dims in rested[1:])),
        batch=rested[0][0] if splits else None,
        batch_sizes=(shape[0], result[0]) if splits else None,
        all_or_none=True,
        whole=frozenset(),
        computed=tuple(without(dims, signature.whole) for dims in signature.at_work),
        outputs=tuple(without(dims, signature.whole) for dims in signature.outputs),
        check=None,
        entries=None,
        in_data_parallel=True,
    )
