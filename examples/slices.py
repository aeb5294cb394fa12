"""Cut weights into the files that the devices of a parallel training run would have saved.

The examples were trained by one process, so that anybody can train them again; what a user
of the launcher has comes from many devices. This bridges the two.
"""

from __future__ import annotations

import shutil
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
from mindspore import nn

from workers.resharding.checkpoint_file import write_checkpoint
from workers.resharding.layout import Layout
from workers.resharding.strategy_file import write_strategy_file
from workers.spmd.capture import capture, set_parallel_context
from workers.spmd.partition import partition


def infer_layouts(
    make_network: Callable[[], nn.Cell], batch: Any, devices: int
) -> dict[str, Layout]:
    """Return how the strategies of a network divide its parameters over so many devices."""
    set_parallel_context(rank=0, rank_size=devices)
    program = partition(capture(make_network(), [batch]), devices)
    return {name: placed.layout for name, placed in program.parameters.items()}


def weights_of(network: nn.Cell) -> dict[str, np.ndarray]:
    """Return every parameter of a network by its name."""
    return {parameter.name: parameter.asnumpy() for parameter in network.get_parameters()}


def write_slices(
    folder: Path,
    file_name: str,
    weights: Mapping[str, np.ndarray],
    layouts: Mapping[str, Layout],
) -> None:
    """Write ``strategy.ckpt`` and ``rank_N/<file_name>`` in place of what the folder held."""
    shutil.rmtree(folder, ignore_errors=True)
    write_strategy_file(folder / "strategy.ckpt", layouts)
    ranks = sorted({rank for layout in layouts.values() for rank in layout.ranks})
    for rank in ranks:
        slices = {
            name: weights[name][layout.region(rank, weights[name].shape).as_slices()]
            for name, layout in layouts.items()
        }
        write_checkpoint(folder / f"rank_{rank}" / file_name, slices)
