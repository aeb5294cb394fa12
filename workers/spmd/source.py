"""Find the line of the user's source that calls an operator. Reads source files, runs nothing.

MindIR does not keep source lines. It keeps the path of cells down to an operator, and the
attribute that the operator is in its cell: enough to find the call in ``construct``.
"""

from __future__ import annotations

import inspect
import os
import re
from collections.abc import Callable
from dataclasses import replace
from functools import lru_cache
from typing import Any

import mindspore

from workers.spmd.graph import Graph, Node, changed

_NOT_THE_USERS = (os.path.dirname(mindspore.__file__), os.path.dirname(__file__))


def with_sources(graph: Graph, network: Any) -> Graph:
    """Return the graph with ``Node.source`` filled in, where a line can be found."""
    cells = dict(network.cells_and_names())
    nodes = changed(
        graph.nodes, lambda node: replace(node, source=_source_of(node, cells))
    )
    return replace(graph, nodes=nodes)


def path_of(node: Node) -> list[str]:
    """Return the attributes that lead from the network down to the cell of an operator."""
    return [part.rpartition("-")[0] for part in node.scope.split("/")[:-1]]


def _source_of(node: Node, cells: dict[str, Any]) -> str:
    """Climb from the operator's cell to the first that the user wrote; find the call there."""
    path, called = path_of(node), node.instance
    while True:
        cell = cells.get(".".join(path))
        if cell is not None:
            found = _call_in(type(cell).construct, called)
            if found:
                return found
        if not path:
            return ""
        called = path.pop()


@lru_cache(maxsize=4096)
def _call_in(construct: Callable[..., Any], called: str) -> str:
    """Return ``file:line`` of the call in a method of the user; "" for one of MindSpore."""
    try:
        file = inspect.getsourcefile(construct)
        lines, first = inspect.getsourcelines(construct)
    except (OSError, TypeError):
        return ""
    if file is None or file.startswith(_NOT_THE_USERS):
        return ""
    pattern = re.compile(rf"\bself\.{re.escape(called)}\b") if called else None
    offset = next((i for i, line in enumerate(lines) if pattern and pattern.search(line)), 0)
    return f"{_short(file)}:{first + offset}"


def _short(file: str) -> str:
    relative = os.path.relpath(file)
    return file if relative.startswith("..") else relative
