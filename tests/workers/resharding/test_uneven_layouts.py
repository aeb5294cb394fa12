"""Slices that are no equal boxes: fields of an embedding, and rows that are split unevenly."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from workers.resharding.checkpoint import open_checkpoint
from workers.resharding.errors import LayoutError, SliceMismatchError
from workers.resharding.execute import execute
from workers.resharding.layout import Layout
from workers.resharding.plan import plan_rank
from workers.resharding.region import Region

Save = Callable[..., tuple[str, Path]]
Want = Callable[..., Any]

TABLE = np.arange(12 * 4, dtype=np.float32).reshape(12, 4)
FIELDS = Layout((2,), ((0,), ()), field_size=3)  # 3 fields of 4 rows, 2 rows of each per rank
UNEVEN = Layout((3,), ((0,), ()), split_sizes=(5, 0, 7))


def test_of_each_field_a_rank_stores_its_rows_one_field_after_the_other() -> None:
    # As MindSpore's _reshape_param_data_with_weight: row f * (n * r) + rank * r + t.
    assert FIELDS.boxes(1, (12, 4)) == (
        Region((2, 0), (4, 4)),
        Region((6, 0), (8, 4)),
        Region((10, 0), (12, 4)),
    )
    assert FIELDS.stored_shape(1, (12, 4)) == (6, 4)
    assert FIELDS.full_shape((6, 4)) == (12, 4)


def test_rows_that_are_split_unevenly_follow_each_other() -> None:
    assert [UNEVEN.region(rank, (12, 4)) for rank in range(3)] == [
        Region((0, 0), (5, 4)),
        Region((5, 0), (5, 4)),
        Region((5, 0), (12, 4)),
    ]
    assert UNEVEN.full_shape((5, 4)) == (12, 4)


TARGETS = [Layout((4,), ((0,), ())), FIELDS, UNEVEN, Layout((1,), ((), ()))]


@pytest.mark.parametrize("target", TARGETS)
@pytest.mark.parametrize("source", [FIELDS, UNEVEN, Layout((2, 3), ((1,), (0,)))])
def test_each_becomes_each(
    source: Layout, target: Layout, tmp_path: Path, save: Save, want: Want
) -> None:
    checkpoint = open_checkpoint(*save(tmp_path, {"t": TABLE}, {"t": source}))
    for rank in target.ranks:
        plan = plan_rank(checkpoint, {"t": want((12, 4), target)}, rank)
        expected = np.concatenate([TABLE[box.as_slices()] for box in target.boxes(rank, (12, 4))])
        np.testing.assert_array_equal(execute(plan)["t"], expected, strict=True)
        assert plan.bytes_to_read == expected.nbytes


def test_of_a_rank_without_rows_nothing_is_read(tmp_path: Path, save: Save, want: Want) -> None:
    table = np.arange(3 * 64, dtype=np.float32).reshape(3, 64)
    layout = Layout((3,), ((0,), ()), split_sizes=(1, 0, 2))
    checkpoint = open_checkpoint(*save(tmp_path, {"t": table}, {"t": layout}))
    halves = Layout((2,), ((), (0,)))  # the half of no row would span less than no byte
    plan = plan_rank(checkpoint, {"t": want((3, 64), halves)}, 0)
    np.testing.assert_array_equal(execute(plan)["t"], table[:, :32], strict=True)
    assert [path.parent.name for path in plan.bytes_by_file] == ["rank_0", "rank_2"]


def test_files_in_the_wrong_order_show_in_the_sizes(tmp_path: Path, save: Save) -> None:
    layout = Layout((2,), ((0,), ()), split_sizes=(5, 7))
    saved = save(tmp_path, {"t": TABLE}, {"t": layout})
    paths = [Path(saved[0].format(rank=rank)) for rank in (0, 1)]
    paths[0].rename(tmp_path / "between")
    paths[1].rename(paths[0])
    (tmp_path / "between").rename(paths[1])
    told = r"t: rank 0 by the strategy holds Float32 .5, 4., but .*rank_0/.* holds Float32 .7, 4"
    with pytest.raises(SliceMismatchError, match=told):
        open_checkpoint(*saved)


@pytest.mark.parametrize(
    ("options", "reason"),
    [
        ({"field_size": 5}, "cannot be cut into 5 fields"),
        ({"field_size": -1}, "exclude each other"),
        ({"field_size": 2, "split_sizes": (6, 6)}, "exclude each other"),
        ({"field_size": 2, "optimizer_shard": -1}, "exclude each other"),
        ({"split_sizes": (6, 5)}, "the parts have 11 rows, the tensor has 12"),
        ({"split_sizes": (4, 4, 4)}, "into 2 parts, not into"),
        ({"split_sizes": (-1, 13)}, "into 2 parts, not into"),
    ],
)
def test_what_cannot_be_is_refused(options: dict[str, Any], reason: str) -> None:
    with pytest.raises(LayoutError, match=reason):
        Layout((2,), ((0,), ()), **options).boxes(0, (12, 4))
