"""Find slices of parameters that the strategy does not name, by a few bytes of their content.

What a strategy does not name is taken to be whole on every rank. MindSpore's strategy files may
lack parameters that are not trained, and its tools then take the slice of one rank for the whole.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping

from workers.resharding.content import differing
from workers.resharding.dtypes import STORAGE
from workers.resharding.index import CheckpointIndex
from workers.resharding.saved import SavedParameter


def find_unnamed_slices(
    files: Mapping[int, CheckpointIndex], parameters: Mapping[str, SavedParameter]
) -> frozenset[str]:
    """Return the parameters outside of the strategy of which ranks hold different values.

    The first and the last rank of a stage differ in all their coordinates: if ranks of a stage
    hold different slices, these two do.
    """
    pairs: dict[tuple[int, int], list[str]] = defaultdict(list)
    for name, saved in parameters.items():
        if not saved.in_strategy and not _is_own(saved):
            first = saved.holders[0]
            last_of_stage = {rank // saved.layout.stage_size: rank for rank in saved.holders}
            for last in last_of_stage.values():
                pairs[first, last].append(name)
    return frozenset(
        name
        for (first, last), names in pairs.items()
        if first != last
        for name in differing(files[first], files[last], names)
    )


def _is_own(saved: SavedParameter) -> bool:
    """Return whether each rank may have a value of its own: a counter, or a random state."""
    dims, dtype = len(saved.full_shape), STORAGE.get(saved.dtype)
    return dtype is None or dims == 0 or (dims == 1 and dtype.kind in "iu")
