"""Stand in for operators that Ascend takes and a CPU refuses to compile, until a graph is there.

Ascend broadcasts the batch dimensions of BatchMatMul; on a CPU MindSpore ends the compilation.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
from mindspore.ops import PrimitiveWithInfer
from mindspore.ops.auto_generate import BatchMatMul

from workers.spmd.graph import Constant, Graph, Node, changed

_NAME = "BroadcastBatchMatMul"


class _BroadcastBatchMatMul(PrimitiveWithInfer):  # type: ignore[misc]
    """Know the shape of a product whose batch dimensions are broadcast; compute nothing."""

    def __init__(self, original: Any) -> None:
        super().__init__(_NAME)
        flags = {name: getattr(original, name) for name in ("transpose_a", "transpose_b")}
        for name, value in (original.attrs | flags).items():
            self.add_prim_attr(name, value)

    def infer_shape(self, left: Any, right: Any) -> list[int]:
        rows = left[-1] if self.attrs["transpose_a"] else left[-2]
        columns = right[-2] if self.attrs["transpose_b"] else right[-1]
        return [*np.broadcast_shapes(tuple(left[:-2]), tuple(right[:-2])), rows, columns]

    def infer_dtype(self, left: Any, right: Any) -> Any:
        return left


def put_stand_ins(network: Any) -> None:
    """Replace the batch products that the cells of a network hold."""
    for _, cell in network.cells_and_names():
        for name, value in list(vars(cell).items()):
            if type(value) is BatchMatMul:
                setattr(cell, name, _BroadcastBatchMatMul(value))


def without_stand_ins(graph: Graph) -> Graph:
    """Return the graph with the operators that were stood in for."""
    return replace(graph, nodes=changed(graph.nodes, _original))


def _original(node: Node) -> Node:
    if node.op != _NAME:
        return node
    attributes = dict(node.attributes)
    flags = (Constant(attributes.pop("transpose_a")), Constant(attributes.pop("transpose_b")))
    return replace(
        node,
        op="BatchMatMul",
        scope=node.scope.replace(_NAME, "BatchMatMul"),
        inputs=(*node.inputs, *flags),
        attributes=attributes,
    )
