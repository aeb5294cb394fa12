"""The input of the network."""

from __future__ import annotations

import numpy as np
from mindspore import Tensor


def make_input() -> Tensor:
    """Return one batch of 128 samples, the same every time."""
    return Tensor(np.random.RandomState(0).randn(128, 96).astype(np.float32))
