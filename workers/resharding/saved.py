"""Say what a whole set of checkpoint files holds: each parameter, and who has its slices."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property

from workers.resharding.index import CheckpointIndex
from workers.resharding.layout import Layout
from workers.resharding.region import Region


@dataclass(frozen=True)
class SavedParameter:
    """A parameter of a checkpoint, and the ranks whose files hold its slices."""

    layout: Layout
    full_shape: tuple[int, ...]
    dtype: str  # MindSpore's name
    holders: tuple[int, ...]  # ranks; fewer than the layout's if replicas were saved once only
    in_strategy: bool = True  # if not, it is whole on every rank: a counter, say

    @cached_property
    def only(self) -> frozenset[int] | None:
        """The ranks that may be read; None if that is all of the layout."""
        all_hold = len(self.holders) == self.layout.stage_size * len(self.layout.stages)
        return None if all_hold else frozenset(self.holders)

    @property
    def regions(self) -> Mapping[int, Region]:
        """The box that the file of each holder holds."""
        return {rank: self.layout.region(rank, self.full_shape) for rank in self.holders}

    @property
    def boxes(self) -> Mapping[int, tuple[Region, ...]]:
        """What the file of each holder holds; with fields, these are several boxes."""
        return self.layout.boxes_by_rank(self.holders, self.full_shape)

    @property
    def replicas(self) -> list[tuple[int, ...]]:
        """The holders, those that hold the same in one group."""
        groups: dict[tuple[Region, ...], tuple[int, ...]] = {}
        for rank, boxes in self.boxes.items():
            groups[boxes] = (*groups.get(boxes, ()), rank)
        return list(groups.values())


@dataclass(frozen=True)
class SlicedCheckpoint:
    """The files of all ranks that saved together."""

    files: Mapping[int, CheckpointIndex]  # by global rank; files of whole tensors are numbered
    parameters: Mapping[str, SavedParameter]  # optimizer state and counters among them
    named: frozenset[str] = frozenset()  # by the strategy, also if no file has them
    unnamed_slices: frozenset[str] = frozenset()  # not by the strategy, and yet no whole tensors

    @property
    def version(self) -> str:
        """A text that changes with the files; the same on all hosts that share them."""
        files = self.files.items()
        told = [(rank, str(i.path), i.identity.size, i.identity.mtime_ns) for rank, i in files]
        return hashlib.sha256(repr(told).encode()).hexdigest()
