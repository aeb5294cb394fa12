"""Read a MindIR model into a flat list of operators; what they compute is not decided here.

MindIR wraps the operators that matter in plumbing: Load and Depend order side effects,
MakeTuple and TupleGetItem pack values, and every lazily inlined cell is a function of its
own. All of that is resolved here, so that a ``Graph`` holds operators and values only.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any, Union

import numpy as np

from workers.spmd.errors import CaptureError
from workers.spmd.mindir import MONAD, decode_attribute, decode_dtype


@dataclass(frozen=True)
class Value:
    """A tensor that flows through the graph."""

    name: str  # unique in its graph
    shape: tuple[int, ...]
    dtype: str  # MindSpore's name: "Float32"


@dataclass(frozen=True, eq=False)
class Constant:
    """An operand that is known now: a number, a string, a tuple of these, None or an array."""

    value: Any
    dtype: str = ""  # of an array, MindSpore's name; a BFloat16 array holds uint16


Operand = Union[Value, Constant, tuple["Operand", ...]]


@dataclass(frozen=True, eq=False)
class Node:
    """One operator."""

    op: str  # "MatMul"
    scope: str  # where in the network: "fc1-Dense/MatMul-op0"
    inputs: tuple[Operand, ...]
    outputs: tuple[Value, ...]
    attributes: dict[str, Any] = field(default_factory=dict)
    returns_tuple: bool = False  # also when the tuple has a single tensor
    instance: str = ""  # the attribute that it is in its cell: "matmul"
    source: str = ""  # where the user calls it: "network.py:12"

    @property
    def tensors(self) -> tuple[Value | Constant, ...]:
        """The operands that are tensors, tuples of them laid flat: what a strategy counts."""
        return tuple(x for x in flatten(self.inputs) if is_tensor(x))

    def argument(self, index: int, default: Any = None) -> Any:
        """Return the value of a constant operand; ``default`` where there is none."""
        operand = self.inputs[index] if index < len(self.inputs) else None
        return operand.value if isinstance(operand, Constant) else default

    def __str__(self) -> str:
        where = ", ".join(filter(None, (self.scope, self.source)))
        return f"{self.op} ({where})" if where else self.op


@dataclass(frozen=True, eq=False)
class Graph:
    """A network, ready to be divided."""

    nodes: tuple[Node, ...]  # in an order in which they can run
    parameters: dict[str, Value]  # by the name that checkpoints use
    inputs: tuple[Value, ...]
    outputs: Operand  # a value or constant, or a (nested) tuple of them


def is_tensor(operand: Operand) -> bool:
    """Tell tensors, constant ones included, from numbers, strings and None."""
    if isinstance(operand, Constant):
        return isinstance(operand.value, np.ndarray)
    return isinstance(operand, Value)


def shape_of(operand: Value | Constant) -> tuple[int, ...]:
    """Return the shape of a tensor operand."""
    return operand.shape if isinstance(operand, Value) else tuple(operand.value.shape)


def flatten(operand: Operand) -> Iterator[Value | Constant]:
    """Yield the leaves of a nested tuple of operands, in order."""
    if isinstance(operand, tuple):
        for item in operand:
            yield from flatten(item)
    else:
        yield operand


def parse_graph(model: Any) -> Graph:
    """Read a decoded ``mindspore.train.mind_ir_pb2.ModelProto``.

    Raises:
        CaptureError: the graph branches on data, or holds what no rank can run.
    """
    return _Reader(model).read()


_ORDERING = {"UpdateState"}  # yields a token that orders side effects, never a tensor
_TRANSPARENT = {"Load", "Depend", "stop_gradient", "StopGradient"}  # yields its first input
_PACKING = {"MakeTuple", "MakeList", "make_tuple", "make_list"}
_UNPACKING = {"TupleGetItem", "ListGetItem", "tuple_getitem", "list_getitem"}
_BRANCHES = {"Switch", "Partial", "SwitchLayer"}


class _Reader:
    """Walks the functions of a model; ``known`` maps every name to what it stands for."""

    def __init__(self, model: Any) -> None:
        self.model = model
        self.primitives = {p.name: p for p in model.primitives}
        self.functions = {f.name: f for f in model.functions}
        self.constants: dict[str, Operand] = {}
        for graph in (model.graph, *model.functions):
            for node in graph.node:
                if node.op_type == "Constant":
                    self.constants[node.output[0]] = _constant(node.attribute[0])
        self.nodes: list[Node] = []

    def read(self) -> Graph:
        main = self.model.graph
        known: dict[str, Operand] = {}
        parameters = {}
        for proto in main.parameter:
            name = proto.ref_key or proto.name.rpartition(":")[2]
            value = Value(name, tuple(proto.dims), decode_dtype(proto.data_type))
            parameters[name] = known[proto.name] = value
        inputs = []
        for proto in main.input:
            tensor = proto.tensor[0]
            name = "input:" + proto.name.rpartition(":")[2]
            value = Value(name, tuple(tensor.dims), decode_dtype(tensor.data_type))
            known[proto.name] = value
            inputs.append(value)
        outputs = self._run(main, known)
        return Graph(tuple(self.nodes), parameters, tuple(inputs), outputs)

    def _run(self, graph: Any, known: dict[str, Operand]) -> Operand:
        """Append the operators of one function and return what it returns."""
        for proto in graph.node:
            if proto.op_type != "Constant":
                known[proto.output[0]] = self._node(proto, known)
        results = [self._operand(output.name, known) for output in graph.output]
        return results[0] if len(results) == 1 else tuple(results)

    def _operand(self, name: str, known: dict[str, Operand]) -> Operand:
        found = known.get(name, self.constants.get(name))
        if found is None:
            raise CaptureError(f"the compiled graph uses {name}, which nothing in it defines")
        return found

    def _node(self, proto: Any, known: dict[str, Operand]) -> Operand:
        kind = proto.op_type.removeprefix("REF::")
        if kind in self.functions:
            function = self.functions[kind]
            arguments = [self._operand(name, known) for name in proto.input]
            named = zip((i.name for i in function.input), arguments, strict=True)
            return self._run(function, dict(named))
        primitive = self.primitives.get(kind)
        op = primitive.op_type if primitive is not None else kind
        scope = proto.domain.removeprefix("Default/")
        if primitive is None or op in _BRANCHES:
            raise CaptureError(
                f"the network branches on data ({scope or op}): simulated ranks run straight-line"
                " graphs; compute the condition from constants, or use ops.select"
            )
        if op in _ORDERING:
            return Constant(MONAD)
        if op in _TRANSPARENT:
            return self._operand(proto.input[0], known)
        operands = tuple(
            operand
            for operand in (self._operand(name, known) for name in proto.input)
            if not (isinstance(operand, Constant) and operand.value is MONAD)
        )
        if op in _PACKING:
            return operands
        if op in _UNPACKING:
            return _item(operands, scope)
        attributes = {a.name: decode_attribute(a) for a in primitive.attribute}
        attributes |= {a.name: decode_attribute(a) for a in proto.attribute if a.name != "shape"}
        declared = [a for a in proto.attribute if a.name == "shape"]
        if not declared:
            raise CaptureError(f"{op} ({scope}): MindSpore gave no shape for its result")
        outputs, is_tuple = _outputs(proto.output[0], declared[0])
        instance = primitive.instance_name
        node = Node(op, scope, operands, outputs, attributes, is_tuple, instance)
        self.nodes.append(node)
        return outputs if is_tuple else outputs[0]


def _constant(attribute: Any) -> Constant:
    dtype = decode_dtype(attribute.tensors[0].data_type) if attribute.tensors else ""
    return Constant(decode_attribute(attribute), dtype)


def _item(operands: tuple[Operand, ...], scope: str) -> Operand:
    packed, index = operands[0], operands[1]
    if isinstance(packed, Constant):
        packed = tuple(Constant(v) for v in packed.value)
    if not isinstance(packed, tuple) or not isinstance(index, Constant):
        raise CaptureError(f"{scope}: an item of no tuple, or by an index that changes")
    found: Operand = packed[index.value]
    return found


def _outputs(name: str, declared: Any) -> tuple[tuple[Value, ...], bool]:
    """Return the tensors that a node yields, and whether they come as a tuple."""
    if declared.tensors:
        tensors, is_tuple = list(declared.tensors[:1]), False
    else:
        tensors, is_tuple = [v.tensors[0] for v in declared.values], True
    names = [f"{name}#{i}" for i in range(len(tensors))] if is_tuple else [name]
    pairs = zip(names, tensors, strict=True)
    values = (Value(n, tuple(t.dims), decode_dtype(t.data_type)) for n, t in pairs)
    return tuple(values), is_tuple
