"""Refuse files of different steps, going by the counters that a training run saves with them."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from workers.resharding.content import sample
from workers.resharding.dtypes import STORAGE
from workers.resharding.errors import CounterMismatchError
from workers.resharding.index import CheckpointIndex

COUNTERS = ("epoch_num", "step_num", "global_step")


def check_counters(files: Mapping[int, CheckpointIndex]) -> None:
    """Compare what each counter says in every file that has it.

    Raises:
        CounterMismatchError: two files say different.
    """
    for counter in COUNTERS:
        known: tuple[CheckpointIndex, int] | None = None
        for index in [index for index in files.values() if counter in index.tensors]:
            value = _value(index, counter)
            if value is None:
                continue
            known = known or (index, value)
            if value != known[1]:
                raise CounterMismatchError(
                    counter, str(known[0].path), known[1], str(index.path), value
                )


def _value(index: CheckpointIndex, counter: str) -> int | None:
    tensor = index.tensors[counter]
    if tensor.dims not in ((), (1,)) or tensor.dtype not in STORAGE:
        return None
    (value,) = np.frombuffer(sample(index, counter), STORAGE[tensor.dtype])
    return int(value) if np.isrealobj(value) and np.isfinite(value) else None
