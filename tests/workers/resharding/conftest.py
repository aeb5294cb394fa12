from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import numpy as np
import pytest

from workers.resharding.layout import Layout


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
    plain = {"b": ((4, 2), (0,)), "w2": ((4, 2), (-1, 0))}
    gap = {**plain, "w": ((2, 2, 2), (1, -1))}
    swap = {**plain, "w": ((2, 2, 2), (0, 1))}
    lay = {"b": ((4, 2), (0,)), "w": ((2, 2, 2), (1, 0)), "w2": ((2, 2, 2), ((-1,), (1, 0)))}
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
