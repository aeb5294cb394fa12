"""Read a MindIR model into a graph: operators, the values between them, and their control flow.

MindIR wraps what matters in plumbing: Load and Depend order side effects, MakeTuple and
TupleGetItem pack values, and every lazily inlined cell is a function of its own. All of that
is resolved here. A branch on data is a Switch between two functions; a loop is a function
that in its last step calls itself, through one.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Union

from workers.nested import is_tensor, tensors_in
from workers.spmd.errors import CaptureError
from workers.spmd.graph import (
    INPUT,
    Block,
    Call,
    Constant,
    End,
    Fork,
    Graph,
    Jump,
    Node,
    Operand,
    Value,
    blocks_of,
    values_of,
)
from workers.spmd.in_place import InPlace, Moment, is_state, seen
from workers.spmd.mindir import decode_attribute, decode_dtype

_ORDERING = {"UpdateState"}  # yields a token that orders side effects, never a tensor
_TRANSPARENT = {"Load", "Depend", "stop_gradient", "StopGradient"}  # yields its first input
_PACKING = {"MakeTuple", "MakeList", "make_tuple", "make_list"}
_PICKING = {"SwitchLayer", "switch_layer"}  # a cell of a list, by its number
_UNPACKING = {"TupleGetItem", "ListGetItem", "tuple_getitem", "list_getitem"}


@dataclass(frozen=True, eq=False)
class _Closure:
    """A function with its first arguments."""

    function: str
    arguments: tuple[Operand, ...] = ()


@dataclass(frozen=True, eq=False)
class _Choice:
    """One of some functions, by its number."""

    index: Operand
    closures: tuple[_Closure, ...]


@dataclass
class _Loop:
    """A function that is being read and may call itself."""

    name: str
    arguments: list[Operand]  # of its first call
    varying: set[int]  # the arguments that are not the same in every round
    since: Moment  # when it was entered

    def picked(self, arguments: list[Operand]) -> tuple[Operand, ...]:
        return tuple(arguments[i] for i in sorted(self.varying))


class _VariesError(Exception):
    """An argument of a loop turned out to be different in a later round."""

    def __init__(self, loop: _Loop) -> None:
        super().__init__(loop.name)
        self.loop = loop


_Known = Union[End[Node], _Closure, _Choice, list[_Closure]]


def parse_graph(model: Any, arguments: Sequence[Any] = ()) -> Graph:
    """Read a decoded ``mindspore.train.mind_ir_pb2.ModelProto``.

    Args:
        arguments: what the network was compiled with; containers of tensors are looked into.

    Raises:
        CaptureError: the graph holds what no rank can run.
    """
    return _Reader(model).read([x for x in arguments if tensors_in(x)])


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
        self.nodes: list[Node] = []  # of the block that is being read
        self.loops: dict[str, _Loop] = {}  # that are being read, by their function
        self.readings: Counter[str] = Counter()  # of each function: its values need other names
        self.callees = {name: set(self._mentioned(f)) for name, f in self.functions.items()}
        self.in_place = InPlace()

    def read(self, arguments: Sequence[Any]) -> Graph:
        main = self.model.graph
        known: dict[str, _Known] = {}
        parameters = {}
        for proto in main.parameter:
            name = proto.ref_key or proto.name.rpartition(":")[2]
            value = Value(name, tuple(proto.dims), decode_dtype(proto.data_type))
            parameters[name] = known[proto.name] = value
        inputs: list[Value] = []
        for number, proto in enumerate(main.input):
            name = INPUT + proto.name.rpartition(":")[2]
            given = _formal(proto, name) if proto.tensor else _held(arguments[number], name)
            known[proto.name] = given
            inputs += values_of(given)
        outputs = self._result(self._run(main, known), "the network")
        self.in_place.require_order()
        return Graph(tuple(self.nodes), parameters, tuple(inputs), outputs)

    def _run(self, graph: Any, known: dict[str, _Known]) -> End[Node]:
        """Append the operators of one function and return what it returns."""
        number = self.readings[graph.name]
        self.readings[graph.name] += 1
        suffix = f"~{number}" if number else ""
        for proto in graph.node:
            if proto.op_type != "Constant":
                known[proto.output[0]] = self._node(proto, known, suffix)
        if len(graph.output) == 1:
            return self._end(graph.output[0].name, known)
        return tuple(self._operand(output.name, known) for output in graph.output)

    def _node(self, proto: Any, known: dict[str, _Known], suffix: str) -> _Known:
        kind = proto.op_type.removeprefix("REF::")
        if kind in self.functions or kind in known:
            return self._called(proto, kind, known, suffix)
        primitive = self.primitives.get(kind)
        scope = proto.domain.removeprefix("Default/")
        if primitive is None:
            raise CaptureError(f"the compiled graph calls {scope or kind}, which is no operator")
        op = primitive.op_type
        if op in _ORDERING:
            return self.in_place.state(proto.input, known)
        if op in _TRANSPARENT:
            self.in_place.load(proto.output[0])
            end = self._end(proto.input[0], known)
            return seen(end, self.in_place.until(proto.input, known)) if _is_operand(end) else end
        if op == "Partial":
            arguments = tuple(self._operand(name, known) for name in proto.input[1:])
            return _Closure(proto.input[0], arguments)
        if op == "Switch":
            holds, fails = (self._closure(name, known) for name in proto.input[1:])
            return _Choice(self._operand(proto.input[0], known), (fails, holds))
        if op in _PICKING:
            return _Choice(self._operand(proto.input[0], known), self._cells(proto.input[1], known))
        if op in _PACKING and all(self._is_closure(name, known) for name in proto.input):
            return [self._closure(name, known) for name in proto.input]
        found = [self._operand(name, known) for name in proto.input]
        is_ordered = any(map(is_state, found))
        changes = self.in_place.until(proto.input, known) if is_ordered else {}
        operands = tuple(seen(operand, changes) for operand in found if not is_state(operand))
        if op in _PACKING:
            self.in_place.pack(proto.output[0], proto.input, known)
            return operands
        if op in _UNPACKING:
            return _item(operands, scope)
        if not is_ordered:
            self.in_place.read_unordered(proto.input)
        attributes = {a.name: decode_attribute(a) for a in primitive.attribute}
        attributes |= {a.name: decode_attribute(a) for a in proto.attribute if a.name != "shape"}
        outputs, is_tuple = _outputs(proto, suffix, f"{op} ({scope})")
        instance = primitive.instance_name
        node = Node(op, scope, operands, outputs, attributes, is_tuple, instance)
        self._append(node)
        # ops.inplace_add and its like have no state: they change nothing, whatever their name says.
        if is_ordered and op.startswith("Inplace") and isinstance(operands[0], Value):
            self.in_place.change(proto.output[0], operands[0], outputs[0])
        return outputs if is_tuple else outputs[0]

    def _append(self, node: Node) -> None:
        self.nodes.append(node)
        self.in_place.bear(node.outputs)

    def _called(self, proto: Any, kind: str, known: dict[str, _Known], suffix: str) -> End[Node]:
        """Read a call of a function, or of what a Switch picks."""
        arguments = tuple(self._operand(name, known) for name in proto.input)
        before = self.in_place.now
        end = self._entered(kind, known, arguments)
        if not _is_operand(end):
            self.in_place.hide(before)
        self.in_place.credit(proto.output[0], before)
        if isinstance(end, Jump) or not isinstance(end, (Fork, Call)) or set(_jumps(end)):
            return end  # what jumps to a loop around here ends the block
        outputs, is_tuple = _outputs(proto, suffix, "a branch on data")
        call = end if isinstance(end, Call) else Call("", (), (), Block((), end))
        self._append(Node("Call", "", (), outputs, {}, is_tuple, call=call))
        return outputs if is_tuple else outputs[0]

    def _entered(
        self, kind: str, known: dict[str, _Known], arguments: tuple[Operand, ...]
    ) -> End[Node]:
        callee = _Closure(kind) if kind in self.functions else known[kind]
        if isinstance(callee, _Closure):
            return self._enter(callee.function, [*callee.arguments, *arguments])
        if not isinstance(callee, _Choice):
            raise CaptureError(f"the compiled graph calls {kind}, which is no function")
        if isinstance(callee.index, Constant):
            closure = callee.closures[int(callee.index.value)]
            return self._enter(closure.function, [*closure.arguments, *arguments])
        blocks = (
            self._block(closure.function, [*closure.arguments, *arguments])
            for closure in callee.closures
        )
        return Fork(callee.index, tuple(blocks))

    def _enter(self, name: str, arguments: list[Operand]) -> End[Node]:
        """Read a function where it is called; what calls itself becomes a loop."""
        if name in self.loops:
            return self._jump(self.loops[name], arguments)
        if not self._recurs(name):
            return self._run(self.functions[name], self._bound(name, arguments))
        loop = _Loop(name, arguments, set(), self.in_place.now)
        while True:
            nodes, self.nodes = self.nodes, []
            self.in_place.forget(loop.since)
            self.loops[name] = loop
            try:
                formals = [
                    _formal(proto, f"{proto.name}~{self.readings[name]}") if i in loop.varying
                    else arguments[i]
                    for i, proto in enumerate(self.functions[name].input)
                ]
                self.in_place.bear(values_of(loop.picked(formals)))
                end = self._run(self.functions[name], self._bound(name, formals))
                block = Block(tuple(self.nodes), end)
            except _VariesError as error:
                if error.loop is not loop:
                    raise
                continue
            finally:
                self.nodes = nodes
                del self.loops[name]
            values = tuple(x for x in loop.picked(formals) if isinstance(x, Value))
            return Call(name, values, loop.picked(arguments), block)

    def _jump(self, loop: _Loop, arguments: list[Operand]) -> Jump:
        pairs = list(zip(loop.arguments, arguments, strict=True))
        differing = {i for i, (first, again) in enumerate(pairs) if not _same(first, again)}
        if differing - loop.varying:
            loop.varying |= differing
            raise _VariesError(loop)
        for first, again in pairs:
            self.in_place.require_same(first, again, loop.since)
        return Jump(loop.name, loop.picked(arguments))

    def _block(self, name: str, arguments: list[Operand]) -> Block[Node]:
        nodes, self.nodes = self.nodes, []
        try:
            end = self._enter(name, arguments)
            return Block(tuple(self.nodes), end)
        finally:
            self.nodes = nodes

    def _bound(self, name: str, arguments: list[Operand]) -> dict[str, _Known]:
        names = (formal.name for formal in self.functions[name].input)
        return dict(zip(names, arguments, strict=True))

    def _mentioned(self, function: Any) -> Iterator[str]:
        """Yield the functions that a function calls or hands on."""
        for node in function.node:
            for name in (node.op_type.removeprefix("REF::"), *node.input):
                if name in self.functions:
                    yield name

    def _recurs(self, name: str) -> bool:
        """Tell whether a function calls itself other than through a loop around it."""
        seen, waiting = set(self.loops), list(self.callees[name])
        while waiting:
            callee = waiting.pop()
            if callee == name:
                return True
            if callee not in seen:
                seen.add(callee)
                waiting += self.callees[callee]
        return False

    def _end(self, name: str, known: dict[str, _Known]) -> End[Node]:
        found = known.get(name, self.constants.get(name))
        if found is None or isinstance(found, (_Closure, _Choice, list)):
            raise CaptureError(f"the compiled graph uses {name}, which is no value in it")
        return found

    def _operand(self, name: str, known: dict[str, _Known]) -> Operand:
        return self._result(self._end(name, known), name)

    @staticmethod
    def _result(end: End[Node], name: str) -> Operand:
        if isinstance(end, (Jump, Fork, Call)):
            raise CaptureError(
                f"the network goes on after calling itself ({name}): simulated ranks run loops,"
                " but no other recursion"
            )
        return end

    def _is_closure(self, name: str, known: dict[str, _Known]) -> bool:
        return name in self.functions or isinstance(known.get(name), _Closure)

    def _cells(self, name: str, known: dict[str, _Known]) -> tuple[_Closure, ...]:
        found = known.get(name)
        if not isinstance(found, list):
            raise CaptureError(f"the compiled graph picks from {name}, which are no functions")
        return tuple(found)

    def _closure(self, name: str, known: dict[str, _Known]) -> _Closure:
        found = _Closure(name) if name in self.functions else known.get(name)
        if not isinstance(found, _Closure):
            raise CaptureError(f"the compiled graph switches to {name}, which is no function")
        return found


def _is_operand(end: End[Node]) -> bool:
    return not isinstance(end, (Jump, Fork, Call))


def _same(one: Operand, other: Operand) -> bool:
    """Tell whether two arguments are the same thing; equal tensors are not."""
    if isinstance(one, tuple) and isinstance(other, tuple):
        return len(one) == len(other) and all(map(_same, one, other))
    if isinstance(one, Constant) and isinstance(other, Constant):
        return one.value is other.value or (is_state(one) and is_state(other))
    return one is other


def _jumps(end: End[Node]) -> Iterator[str]:
    """Yield the loops around the end of a block that it may jump to."""
    if isinstance(end, Jump):
        yield end.loop
    own = end.loop if isinstance(end, Call) else ""
    for block in blocks_of(end):
        yield from (loop for loop in _jumps(block.end) if loop != own)


def _formal(proto: Any, name: str) -> Value:
    if not proto.tensor:
        raise CaptureError(f"the network changes {name} in a loop, and it is no tensor")
    tensor = proto.tensor[0]
    return Value(name, tuple(tensor.dims), decode_dtype(tensor.data_type))


def _held(argument: Any, name: str) -> Operand:
    """Return the values that a container of tensors stands for."""
    if is_tensor(argument):
        return Value(name, tuple(argument.shape), str(argument.dtype))
    if isinstance(argument, Mapping):
        argument = tuple(argument.values())
    if isinstance(argument, (tuple, list)):
        return tuple(_held(item, f"{name}.{i}") for i, item in enumerate(argument))
    return Constant(argument)


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


def _outputs(proto: Any, suffix: str, what: str) -> tuple[tuple[Value, ...], bool]:
    """Return the tensors that a node yields, and whether they come as a tuple."""
    declared = next((a for a in proto.attribute if a.name == "shape"), None)
    if declared is None:
        raise CaptureError(f"{what}: MindSpore gave no shape for its result")
    name = proto.output[0] + suffix
    if declared.tensors:
        tensors, is_tuple = list(declared.tensors[:1]), False
    else:
        tensors, is_tuple = [v.tensors[0] for v in declared.values], True
    names = [f"{name}#{i}" for i in range(len(tensors))] if is_tuple else [name]
    pairs = zip(names, tensors, strict=True)
    values = (Value(n, tuple(t.dims), decode_dtype(t.data_type)) for n, t in pairs)
    return tuple(values), is_tuple
