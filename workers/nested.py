"""Find the tensors in an input of a network: it may be a tensor, or nest them beside plain values.

Knows tensors by their looks alone.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from typing import Any

import numpy as np

_PLAIN = (bool, int, float, str, type(None))


def is_tensor(value: Any) -> bool:
    """Tell whether a value is a tensor or an array."""
    return isinstance(value, np.ndarray) or callable(getattr(value, "asnumpy", None))


def leaves(value: Any) -> Iterator[Any]:
    """Yield tensors and plain values, in the order in which a network counts its inputs."""
    if isinstance(value, Mapping):
        value = tuple(value.values())
    if isinstance(value, (tuple, list)):
        for item in value:
            yield from leaves(item)
    else:
        yield value


def tensors_in(value: Any) -> tuple[Any, ...]:
    """Return the tensors alone, in the same order."""
    return tuple(filter(is_tensor, leaves(value)))


def with_tensors(value: Any, change: Callable[[Any], Any]) -> Any:
    """Return the same structure with a change made to each tensor."""
    if isinstance(value, Mapping):
        return {name: with_tensors(item, change) for name, item in value.items()}
    if isinstance(value, (tuple, list)):
        return type(value)(with_tensors(item, change) for item in value)
    return change(value) if is_tensor(value) else value


def stranger_in(value: Any) -> Any | None:
    """Return what no network can be given, if a value holds such a thing."""
    found = (x for x in leaves(value) if not is_tensor(x) and not isinstance(x, _PLAIN))
    return next(found, None)


def kind_of(value: Any) -> str:
    """Return what a compiled network depends on: structure, shapes, dtypes and plain values."""
    shown = with_tensors(value, lambda tensor: _Kind(tensor))
    return repr(shown)


class _Kind:
    def __init__(self, tensor: Any) -> None:
        self._shown = f"{tensor.dtype}{list(tensor.shape)}"

    def __repr__(self) -> str:
        return self._shown
