"""Decide which boxes of which ranks fill a box exactly once. Only numbers."""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple

from workers.resharding.errors import CoverageError, OverlapError
from workers.resharding.region import Region, first_overlap


class CopyStep(NamedTuple):
    """One box that goes from the saved slice of a rank into the wanted box."""

    source_rank: int
    source: Region  # in the coordinates of that rank's saved slice
    target: Region  # in the coordinates of the wanted box


def plan_parameter(
    parameter: str, wanted: Region, saved: Mapping[int, Region], nearest: int = 0
) -> tuple[CopyStep, ...]:
    """Return the copies that fill ``wanted`` exactly once.

    Args:
        saved: for each source rank, the region that it holds. Ranks with equal regions are
            replicas; of them the one nearest to ``nearest`` is read, the lower one in a tie.

    Raises:
        OverlapError: two saved regions overlap inside ``wanted`` without being equal.
        CoverageError: the saved regions leave part of ``wanted`` unfilled.
    """
    if wanted.num_elements == 0:
        return ()
    reader: dict[Region, int] = {}  # the rank to read each distinct region from
    for rank in sorted(saved, key=lambda rank: (abs(rank - nearest), rank)):
        reader.setdefault(saved[rank], rank)
    hits = [
        (rank, region, common)
        for region, rank in reader.items()
        if (common := region.intersect(wanted)) is not None
    ]
    clash = first_overlap([common for _, _, common in hits])
    if clash is not None:
        (one, first, _), (other, second, _) = (hits[index] for index in clash)
        raise OverlapError(parameter, one, other, f"{first} and {second}")
    # Disjoint boxes inside ``wanted`` whose sizes add up to it must tile it.
    covered = sum(common.num_elements for _, _, common in hits)
    if covered != wanted.num_elements:
        raise CoverageError(parameter, wanted.num_elements, covered)
    return tuple(
        CopyStep(rank, common.relative_to(region), common.relative_to(wanted))
        for rank, region, common in sorted(hits, key=lambda hit: hit[0])
    )
