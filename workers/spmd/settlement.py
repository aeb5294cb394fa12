"""Decide where parameters lie: as the operators that use them want it, which must agree."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping

from workers.resharding.layout import Layout
from workers.spmd.division import check_entry
from workers.spmd.errors import ParameterConflictError, StrategyError
from workers.spmd.graph import Graph, Node, Value, every_node, flatten, shape_of, values_of
from workers.spmd.program import Placed, whole_layout
from workers.spmd.redistribution import same_slices
from workers.spmd.rules import rule_of
from workers.spmd.signature import laid_flat
from workers.spmd.strategy import divide

RESULT = Node("the network's result", "", (), ())


class Settlement:
    """The parameters of a graph, and the layouts that their users have given them so far."""

    def __init__(self, graph: Graph, devices: int, at_rest: Mapping[str, Layout]) -> None:
        """Begin with ``at_rest``: layouts that nobody may change any more."""
        self._graph, self._devices = graph, devices
        self._fixed = frozenset(at_rest)
        self.placed = {
            name: Placed(parameter, at_rest[name])
            for name, parameter in graph.parameters.items()
            if name in at_rest
        }
        self._users: dict[str, Node] = {}  # the operator that gave a parameter its layout
        self._used_directly: set[str] = set()  # parameters that an operator uses without a cast
        self._uses: dict[str, list[Node]] = {}
        for node in every_node(graph.nodes):
            for value in values_of(node.inputs):
                self._uses.setdefault(value.name, []).append(node)

    def settle(self, parameter: Value, layout: Layout, user: Node, cast: bool) -> None:
        """Give a parameter the layout that a user wants; refuse users that want different ones.

        Of layouts with equal slices MindSpore reports that of the first user, or of the last one
        if all of them use the parameter behind a cast.
        """
        name = parameter.name
        if name in self._fixed:
            return
        held = self.placed.setdefault(name, Placed(parameter, layout))
        first = self._users.setdefault(name, user)
        if not same_slices(held.layout, layout, parameter.shape):
            raise ParameterConflictError(
                name, f"{first} as {held.layout}", f"{user} as {layout}"
            )
        if name not in self._used_directly:
            self.placed[name] = Placed(parameter, layout)
        if not cast:
            self._used_directly.add(name)

    def later_use(self, parameter: Value) -> tuple[Layout, Node]:
        """Return the layout of a parameter whose first use, a reshape say, does not decide it.

        The next user that does decides; else the strategy of a reshape; else all devices share
        the rows of the parameter if they can (MindSpore: step_parallel.cc, CreateParameterLayout).
        """
        devices, shape = self._devices, parameter.shape
        users = list(self._users_of(parameter))
        for user, operand in users:
            if user.op != "Reshape":
                signature = rule_of(user, devices)
                pairs = zip(user.tensors, signature.inputs, strict=False)
                dims = next(labels for tensor, labels in pairs if tensor == operand)
                return divide(user, signature, devices).layout(dims), user
        for user, _ in users:
            if user.attributes.get("in_strategy"):
                return _reshape_strategy(user, devices), user
        if not users or parameter in flatten(self._graph.outputs):
            return whole_layout(devices, len(shape)), RESULT
        if shape and shape[0] % devices == 0:
            axes = ((0,), *((),) * (len(shape) - 1))
            return Layout((devices,), axes), users[0][0]
        return whole_layout(devices, len(shape)), users[0][0]

    def _users_of(self, value: Value) -> Iterator[tuple[Node, Value]]:
        """Yield the operators that use a value, also behind casts, and their operand."""
        for user in self._uses.get(value.name, []):
            if user.op == "Cast":
                yield from self._users_of(user.outputs[0])
            else:
                yield user, value


def _reshape_strategy(node: Node, devices: int) -> Layout:
    """Return what the strategy of a reshape asks of the parameter it reshapes."""
    (entry,) = laid_flat(node.attributes["in_strategy"], tuple)
    check_entry(node, 0, shape_of(node.tensors[0]), entry, devices)
    used = tuple(count for count in entry if count > 1)
    repeated, left = divmod(devices, math.prod(used))
    if left or not repeated:
        raise StrategyError(node, f"its strategy {entry} does not divide {devices} devices")
    matrix = ((repeated,) if repeated > 1 else ()) + used
    axes = iter(range(len(matrix) - len(used), len(matrix)))
    return Layout(matrix, tuple((next(axes),) if count > 1 else () for count in entry))
