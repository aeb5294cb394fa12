"""Follow tensors that operators change in place: what a reader sees is what the tensor is by then.

An operator that changes a tensor yields the new one, as any operator does. Who reads the tensor
after it is told by the state that MindIR hands on from one side effect to the next.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any, NamedTuple, Union

from workers.spmd.errors import CaptureError
from workers.spmd.graph import Constant, Operand, Value
from workers.spmd.mindir import MONAD

_UNSEEN = (
    "the network changes a tensor in place in a branch or loop on data, and reads it afterwards:"
    " simulated ranks do not see the change; write x = x + 1 in place of x.add_(1)"
)

_UNORDERED = (
    "the network hands an operator a list or tuple that holds a tensor it changes in place, and"
    " MindIR does not tell which comes first: make the list after the change"
)

_Changes = dict[str, Union[Value, None]]  # name of a tensor -> what it is now; None: not known


@dataclass(frozen=True, eq=False)
class _State:
    """What has been changed in place so far; stands where MindIR has its token."""

    changes: _Changes


class Moment(NamedTuple):
    """How much there was at some time."""

    changes: int
    values: int


class InPlace:
    """Everything that a network changes in place, as far as it has been read."""

    def __init__(self) -> None:
        self._born: dict[str, int] = {}  # the values that operators and loops make, in their order
        self._made: list[tuple[str, Value | None]] = []  # all changes, in order
        self._made_by: dict[str, _Changes] = {}  # by the name of the operator or call
        self._changed: set[str] = set()  # the tensors, wherever that was
        self._loaded: set[str] = set()  # what was read at a known time
        self._packed: dict[str, set[str]] = {}  # the tensors in a tuple that were not
        self._unordered: set[str] = set()  # tensors that operators read out of such tuples

    @property
    def now(self) -> Moment:
        return Moment(len(self._made), len(self._born))

    def bear(self, values: Iterable[Value]) -> None:
        """Note new values."""
        for value in values:
            self._born[value.name] = len(self._born)

    def until(self, names: Iterable[str], known: Mapping[str, Any]) -> _Changes:
        """Return what has been changed before a node, as its inputs tell."""
        changes: _Changes = {}
        for name in names:
            changes |= _changes_in(known.get(name)) | self._made_by.get(name, {})
        return changes

    def state(self, names: Iterable[str], known: Mapping[str, Any]) -> Constant:
        """Return the token of an operator that orders side effects."""
        return Constant(_State(self.until(names, known)))

    def load(self, name: str) -> None:
        """Note that a name stands for a tensor as it is at a known time."""
        self._loaded.add(name)

    def pack(self, tuple_name: str, names: Iterable[str], known: Mapping[str, Any]) -> None:
        """Note which tensors a tuple holds as they will be when the tuple is read."""
        unread = self._packed[tuple_name] = set()
        for name in names:
            unread |= self._packed.get(name, set())
            value = known.get(name)
            if isinstance(value, Value) and name not in self._loaded:
                unread.add(value.name)

    def read_unordered(self, names: Iterable[str]) -> None:
        """Note what an operator reads that has no place among the side effects."""
        self._unordered.update(*(self._packed.get(name, ()) for name in names))

    def change(self, by: str, tensor: Value, into: Value) -> None:
        self._changed.add(tensor.name)
        self._made.append((tensor.name, into))
        self._made_by[by] = {tensor.name: into}

    def hide(self, since: Moment) -> None:
        """What blocks made is not known behind them: nor what they made of a tensor from before."""
        self._made[since.changes :] = [
            (name, None)
            for name, _ in self._made[since.changes :]
            if self._born.get(name, -1) < since.values
        ]

    def credit(self, by: str, since: Moment) -> None:
        """Lay all changes since then to a call."""
        self._made_by[by] = dict(self._made[since.changes :])

    def forget(self, since: Moment) -> None:
        """Take back the changes of a reading that was given up."""
        del self._made[since.changes :]

    def require_same(self, first: Operand, again: Operand, since: Moment) -> None:
        """Check that a round of a loop has changed no tensor from before the loop.

        Raises:
            CaptureError: it has.
        """
        before = _changes_in(first)
        for name, value in _changes_in(again).items():
            if self._born.get(name, -1) < since.values and before.get(name) is not value:
                raise CaptureError(_UNSEEN)

    def require_order(self) -> None:
        """Check that no tensor is changed which somebody reads at an unknown time.

        Raises:
            CaptureError: one is.
        """
        if self._unordered & self._changed:
            raise CaptureError(_UNORDERED)


def is_state(operand: Operand) -> bool:
    """Tell the tokens that order side effects from what operators take."""
    if not isinstance(operand, Constant):
        return False
    return operand.value is MONAD or isinstance(operand.value, _State)


def seen(operand: Any, changes: Mapping[str, Value | None]) -> Any:
    """Return an operand as it is after changes in place.

    Raises:
        CaptureError: nobody knows what it is.
    """
    if isinstance(operand, tuple):
        return tuple(seen(item, changes) for item in operand)
    while isinstance(operand, Value) and operand.name in changes:
        operand = changes[operand.name]
        if operand is None:
            raise CaptureError(_UNSEEN)
    return operand


def _changes_in(operand: Any) -> _Changes:
    state = operand.value if isinstance(operand, Constant) else None
    return state.changes if isinstance(state, _State) else {}
