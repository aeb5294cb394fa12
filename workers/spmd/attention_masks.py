"""Say which scores an attention operator leaves out: Ascend's masks and sparse modes. NumPy."""

from __future__ import annotations

from typing import Any

import numpy as np

from workers.spmd.errors import CaptureError

_EVERY = 2147483647  # tokens before or after: no bound


def layout_name(layout: Any) -> str:
    """Return the name of an input layout; MindIR holds its number."""
    names = ("BSH", "BNSD", "SBH", "BSND", "TND", "TH", "NSD", "SH")
    name = names[layout] if isinstance(layout, int) else str(layout)
    if name not in ("BSH", "BNSD", "BSND"):
        raise CaptureError(f"attention with input_layout {name} cannot run on simulated ranks")
    return name


def attention_mask(
    given: Any,
    queries: int,
    keys: int,
    sparse_mode: int,
    before: int = _EVERY,
    after: int = _EVERY,
) -> np.ndarray | None:
    """Return what is masked, True where a score is left out, or None.

    Args:
        given: the operator's ``attn_mask``; in modes 2 to 4 it is a template for all sizes.
        before: in modes 0 and 4, how many tokens back a query sees (``pre_tokens``).
        after: how many tokens ahead (``next_tokens``).
    """
    ahead = np.arange(keys) - np.arange(queries)[:, None]  # how far a key is ahead of its query
    late = keys - queries  # in modes 3 and 4 the last query stands at the last key
    if sparse_mode == 2:
        return np.asarray(ahead > 0)
    if sparse_mode == 3:
        return np.asarray(ahead > late)
    if sparse_mode == 4:
        return np.asarray((ahead - late > after) | (late - ahead > before))
    if sparse_mode not in (0, 1):
        raise CaptureError(
            f"attention with sparse_mode {sparse_mode} cannot run on simulated ranks; 0 to 4 can"
        )
    if given is None:
        return None
    mask: np.ndarray = given.asnumpy().astype(bool)
    if sparse_mode == 0:
        mask = mask | (ahead > after) | (-ahead > before)
    return mask
