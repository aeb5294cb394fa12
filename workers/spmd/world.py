"""Answer for the world of ranks that a network believes to be built in.

Networks ask MindSpore how many ranks there are; without a device it would say one.
"""

from __future__ import annotations

from typing import Any

import mindspore.communication
import mindspore.communication.management
from mindspore.parallel.shard import Shard

from workers.spmd.errors import CaptureError


def set_world(rank: int, rank_size: int) -> None:
    """Make MindSpore's questions about the world group answer for a simulated rank."""

    def get_rank(*group: Any) -> int:
        return rank

    def get_group_size(*group: Any) -> int:
        return rank_size

    for module in (mindspore.communication, mindspore.communication.management):
        module.get_rank = get_rank
        module.get_group_size = get_group_size
    Shard.__call__ = _refuse_shard


def _refuse_shard(self: Any, fn: Any, *strategies: Any, **named: Any) -> None:
    raise CaptureError(
        f"Cell.shard or mindspore.shard on {getattr(fn, '__name__', type(fn).__name__)}: MindSpore"
        " propagates such a strategy to the operators inside by a search that simulated ranks do"
        " not have; give the operators strategies, with Primitive.shard"
    )
