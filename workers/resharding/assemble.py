"""Put slices together to the whole tensor."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from workers.resharding.copies import plan_parameter
from workers.resharding.region import Region


def assemble(
    full_shape: tuple[int, ...],
    pieces: Sequence[tuple[Region, NDArray[Any]]],
    name: str = "the tensor",
) -> NDArray[Any]:
    """Return the tensor of which each piece holds a region; of equal regions the first is taken.

    Raises:
        OverlapError, CoverageError: the pieces do not make a whole; they are numbered as ranks.
    """
    regions = {number: region for number, (region, _) in enumerate(pieces)}
    steps = plan_parameter(name, Region.whole(full_shape), regions)
    whole = np.empty(full_shape, pieces[0][1].dtype if pieces else np.float32)
    for step in steps:
        piece = pieces[step.source_rank][1]
        whole[step.target.as_slices()] = piece[step.source.as_slices()]
    return whole
