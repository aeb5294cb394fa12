from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from workers.resharding.checkpoint import open_checkpoint
from workers.resharding.checkpoint_file import read_index, write_checkpoint
from workers.resharding.errors import (
    CheckpointFormatError,
    CounterMismatchError,
    IncompleteFileError,
    LayoutError,
    MisplacedParameterError,
    MissingPartError,
    MissingRankError,
    NoCheckpointError,
    RankCountError,
    ReshardError,
    SharedFileError,
    SliceMismatchError,
    StrategyFileError,
    StrategyNeededError,
    UnreadableFileError,
)
from workers.resharding.execute import execute
from workers.resharding.layout import Layout
from workers.resharding.plan import plan_rank
from workers.resharding.rank_files import escape
from workers.resharding.strategy_document import strategy_document
from workers.resharding.strategy_file import write_strategy_file

Save = Callable[..., tuple[str, Path]]

COLUMNS = Layout.from_tensor_map((2, 2), (-1, 0))  # ranks 0, 2 and ranks 1, 3 are replicas
ROWS = Layout((4,), ((0,), ()))
W = np.arange(32, dtype=np.float32).reshape(8, 4)


@pytest.fixture
def saved(tmp_path: Path, save: Save) -> tuple[str, Path]:
    """Four ranks: ``w`` in columns, each saved twice, and ``v`` in rows."""
    return save(tmp_path, {"w": W, "v": W + 100}, {"w": COLUMNS, "v": ROWS})


def rank_file(saved: tuple[str, Path], rank: int) -> Path:
    return Path(saved[0].format(rank=rank))


def rewrite(path: Path, change: Mapping[str, np.ndarray | None]) -> None:
    """Write a file of slices again with some of them replaced, or left out."""
    content = path.read_bytes()
    arrays = {
        name: np.frombuffer(content, np.float32, tensor.nbytes // 4, tensor.chunks[0].offset)
        .reshape(tensor.dims)
        for name, tensor in read_index(path).tensors.items()
    }
    kept = {name: array for name, array in {**arrays, **change}.items() if array is not None}
    write_checkpoint(path, kept)


def test_a_set_of_slices_tells_full_shapes_and_who_holds_them(saved: tuple[str, Path]) -> None:
    checkpoint = open_checkpoint(*saved)
    assert sorted(checkpoint.files) == [0, 1, 2, 3]
    w = checkpoint.parameters["w"]
    assert (w.full_shape, w.dtype, w.holders) == ((8, 4), "Float32", (0, 1, 2, 3))
    assert w.regions[3] == COLUMNS.region(3, (8, 4))


def test_what_the_strategy_does_not_name_is_whole_on_every_rank(saved: tuple[str, Path]) -> None:
    for rank in range(4):
        rewrite(rank_file(saved, rank), {"step": np.array(7, np.float32)})
    step = open_checkpoint(*saved).parameters["step"]
    assert step.full_shape == ()
    assert step.layout.ranks == (0, 1, 2, 3)


def test_parameters_of_a_stage_come_from_its_ranks(tmp_path: Path, save: Save) -> None:
    layouts = {
        "first": Layout((2,), ((0,), ()), stages=(0,)),
        "second": Layout((2,), ((), (0,)), stages=(1,)),
        "tied": Layout((2,), ((), ()), stages=(0, 1)),
    }
    checkpoint = open_checkpoint(*save(tmp_path, dict.fromkeys(layouts, W), layouts))
    holders = {name: saved.holders for name, saved in checkpoint.parameters.items()}
    assert holders == {"first": (0, 1), "second": (2, 3), "tied": (0, 1, 2, 3)}


def test_a_stage_may_hold_nothing_but_what_a_lower_stage_holds_in_another_layout(
    tmp_path: Path,
) -> None:
    layouts = Layout((2,), ((0,), ())), Layout((2,), ((), (0,)))
    for stage, layout in enumerate(layouts):
        document = strategy_document({"w": layout})
        document["parallel_strategy_item"]["w"]["stage"] = stage
        strategy = tmp_path / "strategy" / f"{stage}.json"
        strategy.parent.mkdir(exist_ok=True)
        strategy.write_text(json.dumps(document))
        for local in range(2):
            part = W[layout.region(local, W.shape).as_slices()]
            write_checkpoint(tmp_path / f"rank_{2 * stage + local}" / "net.ckpt", {"w": part})

    checkpoint = open_checkpoint(str(tmp_path), strategy.parent)

    assert sorted(checkpoint.files) == [0, 1, 2, 3]
    assert checkpoint.parameters["w"].full_shape == W.shape
    assert checkpoint.parameters["w"].holders == (0, 1)


def test_a_counter_of_one_stage_only_is_no_gap(tmp_path: Path, save: Save) -> None:
    layouts = {name: Layout((2,), ((),), stages=(n,)) for n, name in enumerate("ab")}
    saved = save(tmp_path, dict.fromkeys(layouts, W[0]), layouts)
    for rank in (2, 3):
        rewrite(rank_file(saved, rank), {"loss_scale": np.array([1], np.float32)})
    assert open_checkpoint(*saved).parameters["loss_scale"].holders == (2, 3)


@pytest.mark.parametrize("value", [np.nan, np.inf, 1j])
def test_what_is_no_number_of_steps_is_no_counter(
    value: complex, saved: tuple[str, Path]
) -> None:
    for rank in range(4):
        rewrite(rank_file(saved, rank), {"global_step": np.array(value)})
    assert open_checkpoint(*saved).parameters["global_step"].full_shape == ()


def test_slices_that_were_saved_once_only_are_complete(saved: tuple[str, Path]) -> None:
    # remove_redundancy=True: of the replicas 0, 2 and 1, 3 of w, ranks 0 and 3 save it.
    for rank in (1, 2):
        rewrite(rank_file(saved, rank), {"w": None})
    assert open_checkpoint(*saved).parameters["w"].holders == (0, 3)


def test_one_file_of_whole_tensors_needs_no_strategy(tmp_path: Path) -> None:
    write_checkpoint(tmp_path / "whole-1_1.ckpt", {"w": W})
    for pattern in ("whole-1_1.ckpt", "whole-*.ckpt"):
        checkpoint = open_checkpoint(str(tmp_path / pattern))
        assert checkpoint.parameters["w"].full_shape == (8, 4)


def test_the_json_strategy_of_a_dim_over_two_axes_is_understood(
    fixtures: Path, compiled_tensors: Mapping[str, np.ndarray], tmp_path: Path
) -> None:
    compiled = fixtures / "compiled" / "out_layinfer"
    for rank in range(8):
        with np.load(compiled / f"p{rank}.npz") as slices:
            write_checkpoint(tmp_path / f"rank_{rank}" / "c.ckpt", dict(slices))
    json_form = open_checkpoint(str(tmp_path), compiled / "s0.json")
    assert json_form == open_checkpoint(str(tmp_path), compiled / "s0.ckpt")
    assert json_form.parameters["w2"].full_shape == compiled_tensors["w2"].shape


def test_a_strategy_is_needed_for_files_of_several_ranks(saved: tuple[str, Path]) -> None:
    for pattern in (saved[0], str(saved[1].parent)):
        with pytest.raises(StrategyNeededError, match="give the strategy file"):
            open_checkpoint(pattern)


def test_the_first_tensor_in_which_ranks_differ_is_named(tmp_path: Path) -> None:
    for rank in range(2):
        tensors = {f"w{number}": W + rank for number in range(30)}
        write_checkpoint(tmp_path / f"rank_{rank}" / "c.ckpt", tensors)
    with pytest.raises(StrategyNeededError, match="ranks 0 and 1 differ in w0"):
        open_checkpoint(str(tmp_path))


def test_a_missing_rank_is_refused(saved: tuple[str, Path]) -> None:
    rank_file(saved, 2).unlink()
    with pytest.raises(MissingRankError, match="no checkpoint file of rank 2: .*rank_2/net-1_10"):
        open_checkpoint(*saved)


def test_a_file_cut_at_any_byte_is_refused(saved: tuple[str, Path]) -> None:
    path = rank_file(saved, 1)
    content = path.read_bytes()
    assert len(content) < 200
    for length in range(len(content)):
        path.write_bytes(content[:length])
        with pytest.raises((CheckpointFormatError, IncompleteFileError), match=str(path)):
            open_checkpoint(*saved)


def test_a_parameter_that_one_rank_lacks_is_refused_with_its_file(saved: tuple[str, Path]) -> None:
    rewrite(rank_file(saved, 3), {"v": None})
    with pytest.raises(IncompleteFileError, match="rank_3.*the file of rank 3 lacks v") as caught:
        open_checkpoint(*saved)
    assert caught.value.rank == 3


@pytest.mark.parametrize("other", [W[:, :1], W[:, :2].astype(np.float64), W[0]])
def test_a_slice_of_another_shape_or_type_than_its_siblings_is_refused(
    other: np.ndarray, saved: tuple[str, Path]
) -> None:
    rewrite(rank_file(saved, 1), {"w": other})
    with pytest.raises(SliceMismatchError, match=r"w: .*rank_0.* holds Float32 \[8, 2\].*rank_1"):
        open_checkpoint(*saved)


@pytest.mark.parametrize(
    ("layouts", "kind", "reason"),
    [
        ({"w": Layout((8,), ((), ()))}, MissingRankError, "rank 4, 5, 6, 7"),
        ({"w": Layout((2,), ((), ()))}, RankCountError, "for 2 ranks, but there is .*rank_2"),
        ({"w": Layout((4,), ((0,),))}, LayoutError, "w: .* for 1 dims, but .* shape .8, 2."),
        ({"w": Layout((4,), ((), (), (0,)))}, LayoutError, "w: .* 3 dims, the tensor has 2"),
        ({"w": Layout((4,), ((), ()), optimizer_shard=3)}, LayoutError, "w: .* 4 replicas cannot"),
        ({"w": COLUMNS, "v": Layout((2,), ((0,), ()))}, StrategyFileError, "not for 4 ranks"),
    ],
)
def test_a_strategy_of_another_network_is_refused(
    layouts: dict[str, Layout], kind: type[ReshardError], reason: str, saved: tuple[str, Path]
) -> None:
    write_strategy_file(saved[1], layouts)
    with pytest.raises(kind, match=reason):
        open_checkpoint(*saved)


def test_files_of_the_stages_in_the_wrong_order_are_refused(tmp_path: Path, save: Save) -> None:
    layouts = {name: Layout((1,), ((),), stages=(n,)) for n, name in enumerate("ab")}
    saved = save(tmp_path, dict.fromkeys(layouts, W[0]), layouts)
    first, second = rank_file(saved, 0), rank_file(saved, 1)
    first.rename(tmp_path / "between")
    second.rename(first)
    (tmp_path / "between").rename(second)
    with pytest.raises(MisplacedParameterError, match="holds b, .* only ranks 1 to 1 do"):
        open_checkpoint(*saved)


def test_a_link_to_the_file_of_another_rank_is_refused(saved: tuple[str, Path]) -> None:
    rank_file(saved, 2).unlink()
    rank_file(saved, 2).hardlink_to(rank_file(saved, 0))  # w is the same there, v is not
    with pytest.raises(SharedFileError, match="ranks 0 and 2 hold different slices of v"):
        open_checkpoint(*saved)


def test_replicas_may_be_links(tmp_path: Path, save: Save) -> None:
    saved = save(tmp_path, {"w": W}, {"w": COLUMNS})
    rank_file(saved, 2).unlink()
    rank_file(saved, 2).hardlink_to(rank_file(saved, 0))
    assert open_checkpoint(*saved).parameters["w"].holders == (0, 1, 2, 3)


def test_no_flipped_bit_of_a_header_gives_a_wrong_number(
    saved: tuple[str, Path], want: Callable[..., Any]
) -> None:
    path = rank_file(saved, 1)
    content = bytearray(path.read_bytes())
    index = read_index(path)
    payload = {
        byte
        for tensor in index.tensors.values()
        for chunk in tensor.chunks
        for byte in range(chunk.offset, chunk.offset + chunk.nbytes)
    }
    wanted = {"w": want((8, 4), COLUMNS), "v": want((8, 4))}
    refused = 0
    for place in sorted(set(range(len(content))) - payload):
        for bit in range(8):
            content[place] ^= 1 << bit
            path.write_bytes(content)
            try:
                loaded = execute(plan_rank(open_checkpoint(*saved), wanted, rank=1))
            except ReshardError:
                refused += 1
            else:
                np.testing.assert_array_equal(loaded["w"], W[:, 2:])
                np.testing.assert_array_equal(loaded["v"], W + 100)
            content[place] ^= 1 << bit
    assert refused > 300


def test_ranks_that_counted_to_different_steps_are_refused(saved: tuple[str, Path]) -> None:
    for rank in range(4):
        rewrite(rank_file(saved, rank), {"step_num": np.array(7 + (rank == 2), np.float32)})
    with pytest.raises(CounterMismatchError, match="step_num is 7 in the one and 8 in the other"):
        open_checkpoint(*saved)


def test_a_file_whose_writer_is_not_done_is_refused(tmp_path: Path) -> None:
    write_checkpoint(tmp_path / "c.ckpt.tmp", {"w": W})
    with pytest.raises(CheckpointFormatError, match="its writer has not finished it"):
        open_checkpoint(str(tmp_path / "c.ckpt.tmp"))


def test_a_folder_of_whole_files_gives_its_newest_step(tmp_path: Path) -> None:
    for step in (9, 10):
        write_checkpoint(tmp_path / f"net-{step}_1.ckpt", {"w": W * step})
    assert open_checkpoint(str(tmp_path)).files[0].path.name == "net-10_1.ckpt"


def test_a_missing_file_without_a_strategy_is_named(tmp_path: Path) -> None:
    with pytest.raises(UnreadableFileError, match="no.ckpt: cannot be read"):
        open_checkpoint(str(tmp_path / "no.ckpt"))


def test_of_a_folder_without_a_checkpoint_is_told_what_was_looked_for(tmp_path: Path) -> None:
    write_checkpoint(tmp_path / "step [7]" / "rank_0" / "net.ckpt", {"w": W})
    (tmp_path / "step [7]" / "empty").mkdir()
    told = r"no checkpoint: no \*\.ckpt, no \*\.safetensors, .* in rank_0, .* a pattern with {rank}"
    for path in (str(tmp_path), escape(str(tmp_path / "step [7]" / "empty"))):
        with pytest.raises(NoCheckpointError, match=told):
            open_checkpoint(path)


def test_a_strategy_file_of_each_rank_is_found_by_a_pattern(saved: tuple[str, Path]) -> None:
    for rank in range(4):
        copy = saved[1].with_name(f"ckpt_strategy_rank_{rank}.ckpt")
        copy.write_bytes(saved[1].read_bytes())
    pattern = saved[1].with_name("ckpt_strategy_rank_{rank}.ckpt")
    assert open_checkpoint(saved[0], pattern) == open_checkpoint(*saved)


@pytest.mark.parametrize("name", ["param_name_map.json", "model.safetensors.index.json"])
@pytest.mark.parametrize("document", [{"weight_map": {"v": "p0", "w": "p1"}}, {"w": "p1"}])
def test_a_part_of_shared_files_that_was_not_copied_is_missed(
    document: dict[str, Any], name: str, tmp_path: Path
) -> None:
    write_checkpoint(tmp_path / "p0.safetensors", {"v": W})
    (tmp_path / name).write_text(json.dumps(document))
    with pytest.raises(MissingPartError, match=f"{name}: w is in p1, it says, but no file"):
        open_checkpoint(str(tmp_path))
    write_checkpoint(tmp_path / "p1.safetensors", {"w": W})
    assert set(open_checkpoint(str(tmp_path)).parameters) == {"v", "w"}
    (tmp_path / name).write_bytes(b"\xff")
    with pytest.raises(UnreadableFileError, match="it is no map of parameters"):
        open_checkpoint(str(tmp_path))
