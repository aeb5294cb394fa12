"""MindSpore's own layouts, as infer_predict_layout returned them, are read for what they mean."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from workers.runtimes.predict_layout import parse_predict_layout

FIXTURES = Path(__file__).parents[2] / "fixtures"


def _no_group(name: str) -> int:
    raise AssertionError(f"no layout here has the optimizer group {name!r}")


def _entry(
    device_matrix: list[int],
    tensor_map: list[int],
    slice_shape: list[int],
    full_shape: list[int],
    group: str = "",
) -> list[Any]:
    return [device_matrix, tensor_map, slice_shape, 0, True, group, full_shape, slice_shape]


@pytest.mark.parametrize(
    "case",
    ["matmul_2x4_col", "matmul_col4_of8", "matmul_transposed", "layout_dp_mp", "layout_two_axes"],
)
def test_layout_of_mindspore_is_read_and_given_back(case: str) -> None:
    recorded = json.loads((FIXTURES / case / "layouts.json").read_text())["predict_layout"]
    for name, entry in recorded.items():
        wanted = parse_predict_layout(entry, "Float32", rank=0, group_size=_no_group)
        layout = wanted.layout
        assert (name, list(layout.device_matrix)) == (name, entry[0])
        assert (name, list(layout.tensor_map)) == (name, entry[1])
        assert (name, list(layout.slice_shape(wanted.full_shape))) == (name, entry[2])
        assert (name, list(wanted.full_shape)) == (name, entry[6])


def test_entries_of_a_dim_that_two_axes_split_are_told_from_two_dims() -> None:
    # [2, 2, 2] devices; 4 columns of 16 stay, so axes 1 and 0 split dim 1 and nothing dim 0.
    entry = _entry([2, 2, 2], [-1, 1, 0], [96, 4], [96, 16])
    wanted = parse_predict_layout(entry, "Float32", rank=0, group_size=_no_group)
    assert wanted.layout.axes == ((), (1, 2))
    # The same three entries, when one axis splits dim 0 and two split dim 1 ...
    entry = _entry([2, 2, 2], [2, 1, 0], [48, 4], [96, 16])
    assert parse_predict_layout(entry, "Float32", 0, _no_group).layout.axes == ((0,), (1, 2))
    # ... and the other way round.
    entry = _entry([2, 2, 2], [2, 1, 0], [24, 8], [96, 16])
    assert parse_predict_layout(entry, "Float32", 0, _no_group).layout.axes == ((0, 1), (2,))


def test_optimizer_group_counts_as_a_further_split_of_dim_0() -> None:
    entry = _entry([2, 4], [-1, 0], [96, 4], [96, 16], group="2-16453000547691086251")
    asked = []

    def group_size(name: str) -> int:
        asked.append(name)
        return 2

    wanted = parse_predict_layout(entry, "Float32", rank=5, group_size=group_size)
    assert asked == ["2-16453000547691086251"]
    # Rank 5 = position (1, 1): columns 4 to 8, and of the two replicas {1, 5} the second half.
    region = wanted.layout.region(5, wanted.full_shape)
    assert (region.start, region.stop) == ((48, 4), (96, 8))


def test_pipeline_rank_holds_parameters_of_its_own_stage() -> None:
    # Eight ranks in two stages of four: rank 6 is the third of stage 1.
    entry = _entry([2, 2], [0, -1], [64, 64], [128, 64])
    wanted = parse_predict_layout(entry, "Float32", rank=6, group_size=_no_group)
    assert wanted.layout.ranks == (4, 5, 6, 7)
    assert wanted.layout.region(6, wanted.full_shape).as_slices() == np.s_[0:64, 0:64]


def test_scalar_parameter_has_no_dims() -> None:
    wanted = parse_predict_layout(_entry([8], [], [], []), "Int32", 3, _no_group)
    assert (wanted.full_shape, wanted.layout.axes, wanted.dtype) == ((), (), "Int32")
