from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from workers.resharding.checkpoint_file import write_checkpoint
from workers.resharding.layout import Layout
from workers.resharding.strategy_file import write_strategy_file

Want = Callable[..., "WantedTensor"]
Save = Callable[..., tuple[str, Path]]


@dataclass(frozen=True)
class WantedTensor:
    """What a network says of one parameter."""

    layout: Layout
    full_shape: tuple[int, ...]
    dtype: str = "Float32"


@pytest.fixture(scope="session")
def want() -> Want:
    """Make what plan_rank wants: (full shape, layout = whole, dtype = Float32)."""

    def make(
        full_shape: tuple[int, ...], layout: Layout | None = None, dtype: str = "Float32"
    ) -> WantedTensor:
        whole = Layout((1,), ((),) * len(full_shape))
        return WantedTensor(layout or whole, full_shape, dtype)

    return make


@pytest.fixture(scope="session")
def save() -> Save:
    """Save tensors as slices: (folder, tensors, layouts); returns the pattern and the strategy."""

    def cut(array: np.ndarray, layout: Layout, rank: int) -> np.ndarray:
        parts = [array[box.as_slices()] for box in layout.boxes(rank, array.shape)]
        return parts[0] if len(parts) == 1 else np.concatenate(parts)

    def write(
        folder: Path,
        tensors: Mapping[str, np.ndarray],
        layouts: Mapping[str, Layout],
        name: str = "net-1_10.ckpt",
    ) -> tuple[str, Path]:
        ranks = sorted({rank for layout in layouts.values() for rank in layout.ranks})
        for rank in ranks:
            slices = {
                tensor: cut(array, layouts[tensor], rank)
                for tensor, array in tensors.items()
                if rank in layouts[tensor].ranks
            }
            write_checkpoint(folder / f"rank_{rank}" / name, slices)
        write_strategy_file(folder / "strategy.ckpt", layouts)
        return str(folder / "rank_{rank}" / name), folder / "strategy.ckpt"

    return write


@pytest.fixture(scope="session")
def fixtures() -> Path:
    """The folder of what MindSpore itself made; see README.md there."""
    return Path(__file__).parents[2] / "fixtures"


@pytest.fixture(scope="session")
def compiled_tensors() -> Mapping[str, np.ndarray]:
    """The full tensors whose slices fixtures/compiled holds."""
    return {
        "w": np.arange(64 * 32, dtype=np.float32).reshape(64, 32),
        "w2": np.arange(32 * 16, dtype=np.float32).reshape(32, 16),
        "b": np.arange(16, dtype=np.float32),
    }


@pytest.fixture(scope="session")
def compiled_layouts() -> Mapping[str, Mapping[str, Layout]]:
    """The layouts in fixtures/compiled, as a dump of their strategy files shows them."""
    plain: dict[str, Any] = {"b": ((4, 2), (0,)), "w2": ((4, 2), (-1, 0))}
    gap = {**plain, "w": ((2, 2, 2), (1, -1))}
    swap = {**plain, "w": ((2, 2, 2), (0, 1))}
    lay: dict[str, Any] = {
        "b": ((4, 2), (0,)),
        "w": ((2, 2, 2), (1, 0)),
        "w2": ((2, 2, 2), ((-1,), (1, 0))),
    }
    configurations = {
        "out_gapfwdopt": (gap, -1),
        "out_gapfwdopt2": (gap, 2),
        "out_layfwdopt": (lay, -1),
        "out_layinfer": (lay, 0),
        "out_swapfwdopt": (swap, -1),
        "out_swapfwdopt2": (swap, 2),
    }
    return {
        name: {
            parameter: Layout.from_tensor_map(matrix, tensor_map, optimizer_shard=shards)
            for parameter, (matrix, tensor_map) in parameters.items()
        }
        for name, (parameters, shards) in configurations.items()
    }
