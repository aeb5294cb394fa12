"""Decide whether the files of several ranks hold whole tensors, as integrated_save=True writes.

Neither the files nor a strategy in protobuf tell that. What tells it is content: files that should
hold different slices hold the same bytes, and not just zeros.
"""

from __future__ import annotations

from collections.abc import Mapping

from workers.resharding.content import is_constant, sample
from workers.resharding.errors import StrategyNeededError
from workers.resharding.index import CheckpointIndex
from workers.resharding.saved import SavedParameter


def are_whole(
    files: Mapping[int, CheckpointIndex], parameters: Mapping[str, SavedParameter]
) -> bool:
    """Return whether all parameters that the strategy splits are whole in fact.

    The first parameter whose slices differ, most often the first one at all, ends the search.
    """
    evidence = False
    for name, saved in parameters.items():
        first, *others = saved.replicas
        if not others:
            continue
        if saved.only is not None:  # of whole tensors, only one rank would have saved it
            return False
        one, other = sample(files[first[0]], name), sample(files[others[-1][0]], name)
        if one != other:
            return False
        evidence = evidence or not is_constant(one)
    return evidence


def require_whole(pattern: str, files: Mapping[int, CheckpointIndex]) -> None:
    """Refuse files of several ranks, given without a strategy, that do not all hold the same.

    Raises:
        StrategyNeededError: they hold slices.
    """
    (lowest, first), *others = files.items()
    for rank, index in others:
        for name in {**first.tensors, **index.tensors}:  # in their order, the same in each process
            one, other = first.tensors.get(name), index.tensors.get(name)
            alike = one is not None and other is not None and one.dims == other.dims
            if not alike or sample(first, name) != sample(index, name):
                reason = f"ranks {lowest} and {rank} differ in {name}"
                raise StrategyNeededError(pattern, reason)
