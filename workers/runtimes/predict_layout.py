"""Read the layouts that ``Model.infer_predict_layout`` returns. Pure: nothing of MindSpore here."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any

from workers.resharding.layout_document import layout_of_tuple
from workers.runtimes.runtime import WantedParameter


def parse_predict_layout(
    entry: Sequence[Any], dtype: str, rank: int, group_size: Callable[[str], int]
) -> WantedParameter:
    """Return what a rank must know about one parameter.

    Args:
        entry: the twelve items that MindSpore has for the parameter.
        rank: the rank that asked. With pipeline stages, MindSpore tells each rank about the
            parameters of its own stage.
        group_size: tells how many ranks a group of this name has. A parameter that the
            optimizer divides once more has such a group, "" stands for none.
    """
    stage = rank // math.prod(entry[0])
    return WantedParameter(layout_of_tuple(entry, group_size, stage), tuple(entry[6]), dtype)
