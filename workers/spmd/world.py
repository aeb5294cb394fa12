"""Answer for the world of ranks that a network believes to be built in.

Networks ask MindSpore how many ranks there are; without a device it would say one.
"""

from __future__ import annotations

import warnings
from typing import Any

import mindspore.communication
import mindspore.communication.management
from mindspore.nn import Cell
from mindspore.parallel.shard import Shard


def set_world(rank: int, rank_size: int) -> None:
    """Make MindSpore's questions about the world group answer for a simulated rank."""

    def get_rank(*group: Any) -> int:
        return rank

    def get_group_size(*group: Any) -> int:
        return rank_size

    for module in (mindspore.communication, mindspore.communication.management):
        module.get_rank = get_rank
        module.get_group_size = get_group_size
    Shard.__call__ = _not_searched


def _not_searched(self: Any, fn: Any, *strategies: Any, **named: Any) -> Any:
    """Take a strategy for a whole cell or function as no strategy for its operators."""
    warnings.warn(
        f"the strategy of shard for {getattr(fn, '__name__', type(fn).__name__)} is not used:"
        " MindSpore searches strategies for the operators inside, simulated ranks split their"
        " batches instead; the answer is the same, layouts may differ",
        stacklevel=2,
    )
    if not isinstance(fn, Cell):
        return fn

    def call(*args: Any) -> Any:  # a cell may not be an attribute of itself
        return fn(*args)

    return call
