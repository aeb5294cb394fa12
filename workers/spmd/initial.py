"""Give parameters that no file has the values of the network's own initialisers.

Random ones are seeded by the name of the parameter: whole tensors are the same on all ranks and
in every run, and each rank cuts its slice out of them.
"""

from __future__ import annotations

import zlib
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import mindspore
import numpy as np
from mindspore.common.np_dtype import bfloat16

from workers.protocol import checksum
from workers.resharding.wanted import matches
from workers.spmd.program import Placed


class InitialValues:
    """What parameters begin with. Made before ``capture`` puts something else in their place."""

    def __init__(self, parameters: Iterable[Any] = (), patterns: Sequence[str] = ()) -> None:
        """Remember the parameters whose names one of the patterns is for."""
        self.checksums: dict[str, str] = {}  # of the whole parameters that were asked for
        self._sources = {
            parameter.name: parameter.init_mode if parameter.has_init else parameter
            for parameter in parameters
            if matches(parameter.name, patterns)
        }

    def take(self, name: str, placed: Placed, rank: int) -> np.ndarray:
        """Return what a rank holds of a parameter, once; bfloat16 as uint16."""
        whole = self.take_whole(name)
        return np.array(whole[placed.layout.region(rank, placed.value.shape).as_slices()])

    def take_whole(self, name: str) -> np.ndarray:
        """Return a whole parameter, once; bfloat16 as uint16."""
        source = self._sources.pop(name)
        whole: np.ndarray = (_initialised(source, name) if source.has_init else source).asnumpy()
        self.checksums[name] = checksum(whole)
        return whole.view(np.uint16) if whole.dtype == bfloat16 else whole


@contextmanager
def deferred() -> Iterator[None]:
    """Let parameters of networks that are built in the block hold nothing yet, on any device."""
    before = {
        name: mindspore.get_auto_parallel_context(name) for name in ("parallel_mode", "device_num")
    }
    mindspore.set_auto_parallel_context(parallel_mode="semi_auto_parallel", device_num=1)
    try:
        yield
    finally:
        mindspore.reset_auto_parallel_context()
        if before["parallel_mode"] != "stand_alone":
            mindspore.set_auto_parallel_context(**before)


def _initialised(lazy: Any, name: str) -> Any:
    """Let the initialiser fill a tensor; MindSpore takes its random numbers from NumPy."""
    state = np.random.get_state()
    np.random.seed(zlib.crc32(name.encode()) ^ (mindspore.get_seed() or 0))
    try:
        return lazy.init_data()
    finally:
        np.random.set_state(state)
