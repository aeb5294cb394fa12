from __future__ import annotations

import pickle
from collections.abc import Mapping
from pathlib import Path

import numpy as np
import pytest

from workers.resharding.errors import LayoutError
from workers.resharding.layout import Layout
from workers.resharding.region import Region


def rows(layout: Layout, full_shape: tuple[int, ...], ranks: range) -> list[tuple[int, int]]:
    regions = [layout.region(rank, full_shape) for rank in ranks]
    return [(region.start[0], region.stop[0]) for region in regions]


def test_mindspore_counts_axes_from_the_right() -> None:
    layout = Layout.from_tensor_map((2, 4), (-1, 0))
    assert layout.axes == ((), (1,))
    assert layout.tensor_map == (-1, 0)


def test_a_dim_over_two_axes_is_expanded_in_the_tensor_map() -> None:
    layout = Layout.from_tensor_map((2, 2, 2), [[-1], [1, 0]])
    assert layout.axes == ((), (1, 2))
    assert layout.tensor_map == (-1, 1, 0)
    assert layout.slice_shape((96, 16)) == (96, 4)


def test_columns_over_the_minor_axis_are_replicated_over_the_major_one() -> None:
    # Device matrix [2, 4]: rank = 4 * major + minor. Ranks 1 and 5 hold columns 4..8 of 16.
    layout = Layout.from_tensor_map((2, 4), (-1, 0))
    assert layout.region(1, (96, 16)) == Region((0, 4), (96, 8))
    assert layout.region(5, (96, 16)) == Region((0, 4), (96, 8))


def test_transposed_tensor_map_swaps_which_axis_cuts_which_dim() -> None:
    # Device matrix [2, 4], map [0, 1]: rows by the minor axis (4), columns by the major one (2).
    layout = Layout.from_tensor_map((2, 4), (0, 1))
    assert layout.region(6, (8, 8)) == Region((4, 4), (6, 8))  # rank 6 = major 1, minor 2


def test_optimizer_shards_are_the_minor_split_of_dim_0() -> None:
    # 16 elements over axis 1 (2 parts of 8), then each part over its 4 replicas.
    layout = Layout.from_tensor_map((4, 2), (0,), optimizer_shard=-1)
    assert rows(layout, (16,), range(8)) == [
        (0, 2), (8, 10), (2, 4), (10, 12), (4, 6), (12, 14), (6, 8), (14, 16),
    ]


def test_groups_of_optimizer_shards_are_runs_of_the_sorted_replicas() -> None:
    # Device matrix [2, 2, 2], only the middle axis splits: replicas of part 0 are 0, 1, 4, 5.
    # In groups of 2, ranks 0 and 4 hold the first half of the part, 1 and 5 the second.
    layout = Layout.from_tensor_map((2, 2, 2), (1, -1), optimizer_shard=2)
    assert rows(layout, (64, 32), range(8)) == [
        (0, 16), (16, 32), (32, 48), (48, 64), (0, 16), (16, 32), (32, 48), (48, 64),
    ]


def test_stages_number_their_ranks_one_after_the_other() -> None:
    layout = Layout.from_tensor_map((2, 2), (-1, 0), stages=(1,))
    assert layout.ranks == (4, 5, 6, 7)
    assert layout.region(5, (32, 32)) == Region((0, 16), (32, 32))
    with pytest.raises(LayoutError, match="rank 3 stores nothing"):
        layout.region(3, (32, 32))


def test_full_shape_undoes_axes_and_optimizer_shards() -> None:
    layout = Layout.from_tensor_map((2, 2, 2), [[-1], [1, 0]], optimizer_shard=-1)
    assert layout.region(0, (32, 16)).shape == (16, 4)
    assert layout.full_shape((16, 4)) == (32, 16)


def test_a_scalar_is_whole_on_every_rank() -> None:
    layout = Layout((2, 2), ())
    assert [layout.region(rank, ()) for rank in layout.ranks] == [Region((), ())] * 4


@pytest.mark.parametrize(
    "configuration",
    ["gapfwdopt", "gapfwdopt2", "layfwdopt", "layinfer", "swapfwdopt", "swapfwdopt2"],
)
def test_regions_are_the_slices_that_mindspore_itself_makes(
    configuration: str,
    fixtures: Path,
    compiled_layouts: Mapping[str, Mapping[str, Layout]],
    compiled_tensors: Mapping[str, np.ndarray],
) -> None:
    for name, layout in compiled_layouts[f"out_{configuration}"].items():
        full = compiled_tensors[name]
        for rank, region in layout.regions(full.shape).items():
            with np.load(fixtures / "compiled" / f"out_{configuration}" / f"p{rank}.npz") as made:
                np.testing.assert_array_equal(full[region.as_slices()], made[name])


@pytest.mark.parametrize(
    ("matrix", "tensor_map", "options", "shape", "reason"),
    [
        ((2, 4), (-1, 0), {}, (96, 18), "dim 1 of shape .96, 18. cannot be cut into 4"),
        ((2, 4), (0, 0), {}, (96, 16), "axis 1 splits the parameter more than once"),
        ((2, 4), (2, -1), {}, (96, 16), "no such axis"),
        ((2, 4), (-1, 0), {}, (96,), "for 2 dims, but the tensor has shape .96."),
        ((2, 4), (-1, 0), {"optimizer_shard": 3}, (96, 16), "2 replicas cannot be cut"),
        ((2, 4), (), {"optimizer_shard": -1}, (), "8 replicas cannot be cut"),
        ((2, 4), (-1, 0), {"field_size": 2}, (96, 16), "field slices"),
        ((2, 0), (-1, 0), {}, (96, 16), "impossible"),
    ],
)
def test_a_layout_that_cannot_be_is_refused(
    matrix: tuple[int, ...],
    tensor_map: tuple[int, ...],
    options: dict[str, int],
    shape: tuple[int, ...],
    reason: str,
) -> None:
    with pytest.raises(LayoutError, match=reason):
        Layout.from_tensor_map(matrix, tensor_map, **options).region(0, shape)


def test_an_axis_of_one_device_may_be_named_twice() -> None:
    assert Layout((8, 1), ((1,), (1,))).region(3, (4, 4)) == Region.whole((4, 4))


def test_the_expanded_form_of_json_files_folds_back_to_the_dims_of_the_tensor() -> None:
    expanded = Layout.from_tensor_map((2, 2, 2), (-1, 1, 0))
    assert expanded.folded((32, 4)) == Layout.from_tensor_map((2, 2, 2), [[-1], [1, 0]])


def test_an_expanded_form_that_could_be_two_layouts_is_refused() -> None:
    with pytest.raises(LayoutError, match="2 ways to fold"):
        Layout.from_tensor_map((2, 2, 2), (2, 1, 0)).folded((8, 8))


def test_of_two_ways_to_fold_the_one_is_taken_that_gives_the_tensor_its_shape() -> None:
    # JSON has 2 x 16 x 16; a slice of 8 x 8 is a quarter of 32 rows and a half of 16 columns,
    # one of 1 x 64 a half of 2 rows and a quarter of 256 columns.
    expanded = Layout.from_tensor_map((2, 2, 2), (2, 1, 0), expanded_shape=(2, 16, 16))
    rows = Layout.from_tensor_map((2, 2, 2), [[2, 1], [0]])
    assert expanded.folded((8, 8)) == expanded.folded((32, 16), whole=True) == rows
    assert expanded.folded((1, 64)) == Layout.from_tensor_map((2, 2, 2), [[2], [1, 0]])
    with pytest.raises(LayoutError, match="0 ways to fold"):
        expanded.folded((8, 9))


def test_a_layout_error_names_the_parameter_and_survives_a_process() -> None:
    error = LayoutError("it is torn", "device matrix [2]").of("fc.weight")
    copy = pickle.loads(pickle.dumps(error))
    assert str(copy) == str(error)
    assert copy.parameter == "fc.weight"
    assert str(error).startswith("fc.weight: the layout (device matrix [2])")
