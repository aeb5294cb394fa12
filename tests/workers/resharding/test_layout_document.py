from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from workers.resharding.errors import StrategyFileError
from workers.resharding.layout import Layout
from workers.resharding.layout_document import layout_of_report, layout_of_tuple
from workers.resharding.strategy_file import read_strategy_file

# The 12 items of MindSpore 2.10 for a weight of 96 x 16, cut into 4 along its columns.
ITEMS = [[2, 4], [-1, 0], [96, 4], 0, True, "", [96, 16], [96, 4], False, False, -1, 0]
COLUMNS = Layout((2, 4), ((), (1,)))
REPORTED = {
    "device_matrix": [2, 2],
    "tensor_map": [0, -1],
    "full_shape": [8, 6],
    "slice_shape": [4, 6],
}


@pytest.mark.parametrize("count", [6, 8, 12])
def test_tuples_of_every_version_are_read(count: int) -> None:
    assert layout_of_tuple(ITEMS[:count], lambda _: 0) == COLUMNS


def test_a_group_of_the_optimizer_gives_its_size() -> None:
    entry = [*ITEMS[:5], "4-5226697808808137312", *ITEMS[6:]]
    layout = layout_of_tuple(entry, {"4-5226697808808137312": 2}.__getitem__, stage=1)
    assert layout == Layout((2, 4), ((), (1,)), optimizer_shard=2, stages=(1,))


@pytest.mark.parametrize("count", [6, 12])
def test_the_expanded_map_of_a_dim_over_two_axes_belongs_to_the_dims_of_the_tensor(
    count: int,
) -> None:
    entry = [[2, 2, 2], [-1, 1, 0], [32, 4], 0, True, "", [32, 16], [32, 1, 4], 0, 0, 0, 0]
    assert layout_of_tuple(entry[:count], lambda _: 0) == Layout((2, 2, 2), ((), (1, 2)))


@pytest.mark.parametrize("case", ["layout_dp_mp", "layout_two_axes", "matmul_2x4_col"])
def test_what_mindspore_inferred_is_read_from_a_file(case: str, fixtures: Path) -> None:
    layouts = read_strategy_file(fixtures / case / "layouts.json")
    known = json.loads((fixtures / case / "layouts.json").read_text())["predict_layout"]
    assert list(layouts) == list(known)
    for name, entry in known.items():
        assert layouts[name].slice_shape(entry[6]) == tuple(entry[2])


def test_the_layouts_that_the_project_prints_are_read(tmp_path: Path) -> None:
    keys = ("device_matrix", "tensor_map", "slice_shape", "full_shape")
    report = {"parameters": {"w": dict(zip(keys, (*ITEMS[:3], ITEMS[6])))}, "operators": []}
    (tmp_path / "layouts.json").write_text(json.dumps(report))
    assert read_strategy_file(tmp_path / "layouts.json") == {"w": COLUMNS}


@pytest.mark.parametrize(
    ("document", "reason"),
    [
        ({"w": ITEMS[:4] + [False, ""]}, "not of one size"),
        ({"w": ITEMS[:5] + ["group", *ITEMS[6:]]}, "optimizer shards, and a file does not tell"),
        ({"w": [[2, 4], ["x", 0], *ITEMS[2:]]}, "the layout of w is damaged"),
        ({"parameters": {"w": {"device_matrix": [2]}}}, "the layout of w is damaged"),
        ({"parameters": {"w": 3}}, "the layout of w is damaged"),
        (
            {"w": [[2, 2, 2], [2, 1, 0], [0, 3], 0, True, "", [8, 6], [8, 6]]},
            "the layout of w is damaged",
        ),
        ({"parameters": {"w": REPORTED | {"stages": [-1]}}}, "the layout of w is damaged"),
        ({"parameters": {"w": REPORTED | {"stages": []}}}, "the layout of w is damaged"),
        ({"parameters": {"w": REPORTED | {"stages": ["0"]}}}, "the layout of w is damaged"),
        ({"parameters": []}, "no object of parameters"),
        ({"parameters": {}}, "it holds no layouts"),
        ({"predict_layout": {"w": [[2, 4], [0, 0], *ITEMS[2:]]}}, "w: .* more than once"),
    ],
)
def test_damaged_layouts_are_refused(document: Any, reason: str, tmp_path: Path) -> None:
    (tmp_path / "layouts.json").write_text(json.dumps(document))
    with pytest.raises(StrategyFileError, match=reason):
        read_strategy_file(tmp_path / "layouts.json")


def test_the_shapes_of_a_report_tell_which_dim_several_axes_split() -> None:
    # [2, 1, 0] may be (2)(1, 0) or (2, 1)(0); 8 rows in slices of 2 are split by two axes.
    entry = {"device_matrix": [2, 2, 2], "tensor_map": [2, 1, 0]}
    shapes = {"full_shape": [8, 6], "slice_shape": [2, 3]}
    assert layout_of_report(entry | shapes) == Layout((2, 2, 2), ((0, 1), (2,)))


def test_a_report_says_which_pipeline_stages_hold_a_parameter() -> None:
    layout = layout_of_report(REPORTED | {"stages": [1, 3]})
    assert layout.ranks == (4, 5, 6, 7, 12, 13, 14, 15)
    assert [layout.holds(rank) for rank in (0, 4, 7, 8, 15, 16)] == [0, 1, 1, 0, 1, 0]
