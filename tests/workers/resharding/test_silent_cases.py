"""What MindSpore's own tools get wrong without an error, and what they take without a word.

Each case was reproduced with MindSpore 2.10. The strategy files and slices of the first ones are
those of MindSpore itself: see fixtures/README.md.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from workers.resharding.checkpoint import SlicedCheckpoint, open_checkpoint
from workers.resharding.checkpoint_file import write_checkpoint
from workers.resharding.errors import (
    IncompleteFileError,
    MissingParametersError,
    RankOrderError,
    ReplicaMismatchError,
)
from workers.resharding.execute import execute
from workers.resharding.layout import Layout
from workers.resharding.plan import plan_rank
from workers.resharding.verify import verify_replicas

Want = Callable[..., Any]
Opened = Callable[[str], SlicedCheckpoint]


@pytest.fixture
def opened(fixtures: Path, tmp_path: Path) -> Opened:
    """Open the slices that the compiler made, written down as checkpoint files."""

    def open_(name: str) -> SlicedCheckpoint:
        compiled = fixtures / "compiled" / name
        for rank in range(8):
            with np.load(compiled / f"p{rank}.npz") as slices:
                write_checkpoint(tmp_path / f"rank_{rank}" / "c.ckpt", dict(slices))
        return open_checkpoint(str(tmp_path), compiled / "s0.ckpt")

    return open_


def check_whole(
    checkpoint: SlicedCheckpoint, tensors: Mapping[str, np.ndarray], want: Want
) -> None:
    wanted = {
        name: want(tensors[name].shape, None, saved.dtype)
        for name, saved in checkpoint.parameters.items()
        if name in tensors
    }
    assert wanted
    for name, array in execute(plan_rank(checkpoint, wanted, 0)).items():
        np.testing.assert_array_equal(array, tensors[name], strict=True)


@pytest.mark.parametrize("name", ["out_swapfwdopt", "out_swapfwdopt2"])
def test_case_1_transform_checkpoints_mixes_up_a_transposed_weight_with_optimizer_shards(
    name: str, opened: Opened, compiled_tensors: Mapping[str, np.ndarray], want: Want
) -> None:
    # Device matrix [2,2,2], tensor map [0,1]: half of the elements are wrong there.
    check_whole(opened(name), compiled_tensors, want)


@pytest.mark.parametrize("name", ["out_layinfer", "out_layfwdopt"])
def test_case_2_unified_safetensors_takes_a_dim_over_two_axes_for_replicas(
    name: str, opened: Opened, compiled_tensors: Mapping[str, np.ndarray], want: Want
) -> None:
    # Tensor map [[-1],[1,0]]: three quarters of the elements are wrong there.
    check_whole(opened(name), compiled_tensors, want)


@pytest.mark.parametrize("name", ["out_gapfwdopt", "out_gapfwdopt2"])
def test_case_3_load_distributed_checkpoint_mixes_up_optimizer_groups_with_gaps(
    name: str, opened: Opened, compiled_tensors: Mapping[str, np.ndarray], want: Want
) -> None:
    # The groups are ranks 0, 1, 4, 5 and 2, 3, 6, 7: no even distance between their members.
    check_whole(opened(name), compiled_tensors, want)


def test_case_4_load_distributed_checkpoint_cannot_load_a_dim_over_two_axes(
    opened: Opened,
    compiled_layouts: Mapping[str, Mapping[str, Layout]],
    compiled_tensors: Mapping[str, np.ndarray],
    want: Want,
) -> None:
    # It raises a bare TypeError; and a target of that kind is refused as well.
    checkpoint, layout = opened("out_swapfwdopt"), compiled_layouts["out_layinfer"]["w2"]
    full = compiled_tensors["w2"]
    for rank in range(8):
        loaded = execute(plan_rank(checkpoint, {"w2": want(full.shape, layout)}, rank))
        np.testing.assert_array_equal(
            loaded["w2"], full[layout.region(rank, full.shape).as_slices()]
        )


def test_case_5_get_parameter_redundancy_finds_no_replicas_of_optimizer_groups_with_gaps(
    opened: Opened,
) -> None:
    # Partial groups of 2 over the replicas 0, 1, 4, 5 of a part: 0 and 4 store the same.
    checkpoint = opened("out_gapfwdopt2")
    assert checkpoint.parameters["w"].replicas[0] == (0, 4)
    assert verify_replicas(checkpoint, full=True) > 0


W = np.arange(32, dtype=np.float32).reshape(8, 4)
ROWS = Layout((4,), ((0,), ()))
REPLICATED_ROWS = Layout((2, 2), ((1,), ()))


def test_files_in_the_wrong_order_are_refused_where_names_or_replicas_tell(
    tmp_path: Path, save: Callable[..., tuple[str, Path]]
) -> None:
    save(tmp_path, {"w": W}, {"w": ROWS})
    for rank, other in enumerate((1, 0, 2, 3)):
        (tmp_path / "list").mkdir(exist_ok=True)
        source = tmp_path / f"rank_{other}" / "net-1_10.ckpt"
        (tmp_path / "list" / f"{rank}_rank_{other}.ckpt").hardlink_to(source)
    with pytest.raises(RankOrderError, match="taken for rank 0, but its name says rank 1"):
        open_checkpoint(str(tmp_path / "list" / "{rank}_*.ckpt"), tmp_path / "strategy.ckpt")
    saved = save(tmp_path, {"w": W}, {"w": REPLICATED_ROWS})
    one, other_path = (Path(saved[0].format(rank=rank)) for rank in (2, 3))
    content = one.read_bytes()
    one.write_bytes(other_path.read_bytes())
    other_path.write_bytes(content)
    with pytest.raises(ReplicaMismatchError, match="should hold the same"):
        verify_replicas(open_checkpoint(*saved))


def test_a_parameter_that_all_files_lack_is_an_error_unless_it_may_be_missing(
    tmp_path: Path, save: Callable[..., tuple[str, Path]], want: Want
) -> None:
    checkpoint = open_checkpoint(*save(tmp_path, {"w": W}, {"w": ROWS}))
    wanted = {"w": want((8, 4)), "head.bias": want((4,))}
    with pytest.raises(MissingParametersError, match="head.bias"):
        plan_rank(checkpoint, wanted, 0)
    plan = plan_rank(checkpoint, wanted, 0, allow_missing=["head.*"])
    assert [part.name for part in plan.slices] == ["w"]
    with pytest.raises(MissingParametersError, match="head.bias"):
        plan_rank(checkpoint, wanted, 0, allow_missing=["tail.*"])


def test_a_file_cut_between_two_parameters_is_refused(
    tmp_path: Path, save: Callable[..., tuple[str, Path]]
) -> None:
    saved = save(tmp_path, {"a": W, "b": W}, {"a": ROWS, "b": ROWS})
    path = Path(saved[0].format(rank=2))
    content = path.read_bytes()
    path.write_bytes(content[: len(content) // 2])  # both take the same room
    with pytest.raises(IncompleteFileError, match="the file of rank 2 lacks b"):
        open_checkpoint(*saved)
