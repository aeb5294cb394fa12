"""Parameters that the strategy does not name: whole on every rank, or refused."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from workers.resharding.checkpoint import SlicedCheckpoint, open_checkpoint
from workers.resharding.checkpoint_file import write_checkpoint
from workers.resharding.conversion import plan_conversion
from workers.resharding.errors import NoLayoutError
from workers.resharding.execute import execute
from workers.resharding.layout import Layout
from workers.resharding.plan import plan_rank
from workers.resharding.strategy_file import write_strategy_file

Want = Callable[..., Any]
ROWS = Layout((4,), ((0,), ()))
FULL = np.arange(32, dtype=np.float32).reshape(8, 4)


def save(folder: Path, unnamed: Callable[[int], np.ndarray], names: Mapping[str, Layout]) -> Path:
    """Save ``w`` as the strategy says, and ``fc.weight`` as each rank has it."""
    for rank in range(4):
        own = FULL[ROWS.region(rank, FULL.shape).as_slices()]
        tensors = {"w": own, "fc.weight": unnamed(rank)}
        write_checkpoint(folder / f"rank_{rank}" / "net-1_1.ckpt", tensors)
    write_strategy_file(folder / "strategy.ckpt", {"w": ROWS, **names})
    return folder


def opened(folder: Path) -> SlicedCheckpoint:
    return open_checkpoint(str(folder), folder / "strategy.ckpt")


def test_slices_without_an_entry_are_refused_with_a_name_that_comes_near(
    tmp_path: Path, want: Want
) -> None:
    folder = save(tmp_path, lambda rank: FULL[2 * rank :][:2], {"net.fc.weight": ROWS})
    said = "fc.weight: the strategy has no entry .* it has net.fc.weight, which no file has"
    for shape in ((8, 4), (2, 4)):  # also where the slice has the shape that is wanted
        with pytest.raises(NoLayoutError, match=said):
            plan_rank(opened(folder), {"fc.weight": want(shape)}, rank=0)
    with pytest.raises(NoLayoutError, match=said):  # not the slice of rank 0 for the whole
        plan_conversion(opened(folder), ["w", "fc.weight"], None, "net.ckpt")


def test_equal_slices_without_an_entry_are_refused_by_their_shape(
    tmp_path: Path, want: Want
) -> None:
    folder = save(tmp_path, lambda rank: np.ones((2, 4), np.float32), {})
    with pytest.raises(NoLayoutError, match=r"holds shape \[2, 4\], not \[8, 4\]; give the strat"):
        plan_rank(opened(folder), {"fc.weight": want((8, 4))}, rank=0)


def test_a_whole_tensor_needs_no_entry(tmp_path: Path, want: Want) -> None:
    folder = save(tmp_path, lambda rank: FULL + 1, {})
    plan = plan_rank(opened(folder), {"fc.weight": want((8, 4))}, rank=0)
    np.testing.assert_array_equal(execute(plan)["fc.weight"], FULL + 1)


@pytest.mark.parametrize("value", [np.float32, lambda rank: np.array([rank, 7], np.uint8)])
def test_counters_and_random_states_may_differ(
    value: Callable[[int], Any], tmp_path: Path
) -> None:
    folder = save(tmp_path, lambda rank: np.asarray(value(rank)), {})
    assert opened(folder).unnamed_slices == frozenset()


def test_what_a_strategy_lacks_does_not_matter_if_nobody_wants_it(
    tmp_path: Path, want: Want
) -> None:
    folder = save(tmp_path, lambda rank: FULL[2 * rank :][:2], {})
    loaded = execute(plan_rank(opened(folder), {"w": want((8, 4))}, rank=0))
    np.testing.assert_array_equal(loaded["w"], FULL)
