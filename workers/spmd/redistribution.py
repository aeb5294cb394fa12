"""Decide which rank copies what from whom when a tensor changes its layout. Only numbers.

The re-sharding core's plan does the work: what it plans between files it plans between ranks.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import lru_cache

from workers.resharding.copies import CopyStep, plan_parameter
from workers.resharding.layout import Layout
from workers.resharding.region import Region


@dataclass(frozen=True)
class Transfer:
    """What one rank does in one redistribution."""

    kind: str  # "Slice" (nothing moves), "AllGather" or "AllToAll"
    group: tuple[int, ...]  # the ranks that exchange with each other, this one included
    copies: tuple[CopyStep, ...]  # what this rank needs
    gives: tuple[tuple[int, Region], ...]  # who needs which part of what this rank holds
    elements_received: int  # from other ranks


def same_slices(one: Layout, other: Layout, shape: tuple[int, ...]) -> bool:
    """Tell whether every rank holds the same part in both layouts."""
    if any(size < 0 for size in shape):
        return True  # of a size that the data decide, so nobody splits it
    return one == other or one.regions(shape) == other.regions(shape)


@lru_cache(maxsize=4096)
def plan_redistribution(
    source: Layout, target: Layout, shape: tuple[int, ...]
) -> Mapping[int, Transfer]:
    """Return each rank's part in bringing a tensor from one layout into the other.

    Of the ranks that hold the same box, each reader takes the one with its own place among its
    own replicas. So a rank reads what it holds from itself, the reading is spread evenly, and
    the ranks fall into the small groups that a device mesh would use.
    """
    held, wanted = source.regions(shape), target.regions(shape)
    holders: dict[Region, list[int]] = {}
    for rank, box in held.items():
        holders.setdefault(box, []).append(rank)
    copies = {}
    for rank, box in wanted.items():
        place = holders[held[rank]].index(rank)
        chosen = {ranks[place % len(ranks)]: held_box for held_box, ranks in holders.items()}
        copies[rank] = plan_parameter("a tensor", box, chosen)
    groups = _groups({rank: {c.source_rank for c in steps} for rank, steps in copies.items()})
    gives: dict[int, list[tuple[int, Region]]] = {rank: [] for rank in wanted}
    for rank, steps in copies.items():
        for copy in steps:
            gives[copy.source_rank].append((rank, copy.source))
    transfers = {}
    for rank, steps in copies.items():
        group = groups[rank]
        boxes = {wanted[member] for member in group}
        kind = "AllGather" if len(boxes) == 1 else "AllToAll"
        received = sum(c.target.num_elements for c in steps if c.source_rank != rank)
        transfers[rank] = Transfer(
            kind if len(group) > 1 else "Slice", group, steps, tuple(gives[rank]), received
        )
    return transfers


@lru_cache(maxsize=4096)
def reduction_groups(layout: Layout, axes: tuple[int, ...]) -> Mapping[int, tuple[int, ...]]:
    """Return for each rank the ranks that differ from it on ``axes`` of the device matrix only."""
    members: dict[tuple[int, ...], list[int]] = {}
    keys = {}
    for rank in layout.ranks:
        rest, key = rank % layout.stage_size, []
        for axis in reversed(range(len(layout.device_matrix))):
            rest, position = divmod(rest, layout.device_matrix[axis])
            key.append(0 if axis in axes else position)
        keys[rank] = tuple(key)
        members.setdefault(keys[rank], []).append(rank)
    return {rank: tuple(members[key]) for rank, key in keys.items()}


def scatter(
    source: Layout, target: Layout, shape: tuple[int, ...], group: tuple[int, ...]
) -> Mapping[int, Region]:
    """Return which part of their slice each rank of a group keeps; all hold the same slice."""
    return {
        rank: target.region(rank, shape).relative_to(source.region(rank, shape)) for rank in group
    }


def _groups(reads: Mapping[int, set[int]]) -> dict[int, tuple[int, ...]]:
    """Return for each rank the ranks that are connected with it by somebody's reading."""
    group_of = {rank: {rank} for rank in reads}
    for reader, sources in reads.items():
        for other in sources:
            joined = group_of[reader] | group_of[other]
            for member in joined:
                group_of[member] = joined
    return {rank: tuple(sorted(group)) for rank, group in group_of.items()}
