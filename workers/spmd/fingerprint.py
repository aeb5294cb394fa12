"""Boil a graph down to a few bytes, so that ranks can tell whether they run the same network."""

from __future__ import annotations

import hashlib
from collections.abc import Container, Iterable, Mapping
from types import MappingProxyType

import numpy as np

from workers.errors import InputError
from workers.spmd.collectives import all_gather
from workers.spmd.graph import Constant, End, Graph, Node, Operand, blocks_of, operands_of
from workers.spmd.transport import Transport

_GRAPH = slice(hashlib.sha256().digest_size)  # of a fingerprint; the initial values follow


class DifferentNetworksError(InputError):
    """Two ranks built networks that compute different things."""

    def __init__(self, rank: int, peer: int) -> None:
        super().__init__(rank, peer)
        self.rank, self.peer = rank, peer

    def __str__(self) -> str:
        return (
            f"ranks {self.rank} and {self.peer} built different networks: an operator, a constant"
            " or an initial value made in __init__ depends on the rank or is random; seed it, or"
            " save it with the weights"
        )


def fingerprint(graph: Graph, initial: Mapping[str, str] = MappingProxyType({})) -> np.ndarray:
    """Return 64 bytes that depend on the operators, their order and constants, and on ``initial``.

    Names of values do not count: MindSpore numbers them as it goes.

    Args:
        initial: checksums of the parameters that no file has.
    """
    numbers: dict[str, int] = {}
    total = hashlib.sha256()

    def add(operand: Operand) -> None:
        if isinstance(operand, tuple):
            total.update(b"(")
            for item in operand:
                add(item)
            total.update(b")")
        elif isinstance(operand, Constant):
            value = operand.value
            shown = (value.shape, value.dtype.str) if isinstance(value, np.ndarray) else value
            total.update(repr(shown).encode())
            if isinstance(value, np.ndarray):
                total.update(np.ascontiguousarray(value).view(np.uint8).data)
        else:
            number = numbers.setdefault(operand.name, len(numbers))
            total.update(repr((number, operand.shape, operand.dtype)).encode())

    def add_all(nodes: Iterable[Node], end: End[Node]) -> None:
        for node in nodes:
            total.update(repr((node.op, node.stage, sorted(node.attributes.items()))).encode())
            add(node.inputs)
            if node.call is not None:
                add_all((), node.call)
            add(node.outputs)
        total.update(type(end).__name__.encode())
        add(operands_of(end))
        for block in blocks_of(end):
            add_all(block.body, block.end)

    add_all(graph.nodes, graph.outputs)
    values = hashlib.sha256(repr(sorted(initial.items())).encode())
    return np.frombuffer(total.digest() + values.digest(), np.uint8)


def require_same(transport: Transport, own: np.ndarray, stage: Container[int]) -> None:
    """Compare fingerprints with the other ranks. Every rank; blocks until all ranks call it.

    Args:
        stage: the ranks that hold the same parameters; only their initial values are compared.

    Raises:
        DifferentNetworksError: another rank has another fingerprint.
    """
    everybody = tuple(range(transport.rank_size))
    for rank, other in enumerate(
        all_gather(transport, everybody, own, "comparing networks")
    ):
        compared = slice(None) if rank in stage else _GRAPH
        if not np.array_equal(other[compared], own[compared]):
            raise DifferentNetworksError(transport.rank, rank)
