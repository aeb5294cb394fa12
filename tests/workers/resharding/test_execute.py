from __future__ import annotations

import json
import os
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from workers.resharding import file_bytes
from workers.resharding.assemble import assemble
from workers.resharding.checkpoint import open_checkpoint
from workers.resharding.checkpoint_file import write_checkpoint
from workers.resharding.errors import FileChangedError
from workers.resharding.execute import allocate, execute
from workers.resharding.layout import Layout
from workers.resharding.plan import SlicePlan, plan_rank

Want = Callable[..., Any]

CASES = [
    "matmul_2x4_col",
    "matmul_transposed",
    "layout_dp_mp",
    "layout_two_axes",
    "matmul_col4_of8",
    "two_stage_mlp",
]
COMPILED = ["gapfwdopt", "gapfwdopt2", "layfwdopt", "layinfer", "swapfwdopt", "swapfwdopt2"]


def weights(case: Path) -> dict[str, np.ndarray]:
    with np.load(case / "reference.npz") as reference:
        arrays = {name: reference[name] for name in reference.files}
    return {name[6:]: array for name, array in arrays.items() if name.startswith("param:")}


@pytest.mark.parametrize("training", ["train", "train_zero"])
@pytest.mark.parametrize("case", CASES)
def test_slices_that_mindspore_saved_make_the_whole_weights(
    case: str, training: str, fixtures: Path, want: Want
) -> None:
    folder = fixtures / case / training
    checkpoint = open_checkpoint(
        str(folder / "slices" / "rank_{rank}" / "parallel-*.ckpt"), folder / "train_strategy.ckpt"
    )
    full = weights(fixtures / case)
    # The momentum was saved as 2 * weight + 1, and is sliced like the weight.
    full.update({f"moments.{name}": 2 * array + 1 for name, array in full.items()})
    plan = plan_rank(checkpoint, {name: want(full[name].shape) for name in full}, rank=0)
    loaded = execute(plan)
    assert list(loaded) == list(full)
    for name, array in full.items():
        np.testing.assert_array_equal(loaded[name], array, strict=True)


@pytest.mark.parametrize("training", ["train", "train_zero"])
@pytest.mark.parametrize("case", [case for case in CASES if case != "two_stage_mlp"])
def test_each_rank_loads_the_slice_of_its_predict_layout(
    case: str, training: str, fixtures: Path, want: Want
) -> None:
    folder, full = fixtures / case / training, weights(fixtures / case)
    predict = json.loads((fixtures / case / "layouts.json").read_text())["predict_layout"]
    layouts = {}
    for name, array in full.items():
        layout = Layout.from_tensor_map(predict[name][0], predict[name][1])
        if len(layout.axes) != array.ndim:
            layout = layout.folded(array.shape, whole=True)
        layouts[name] = layout
    wanted = {name: want(full[name].shape, layout) for name, layout in layouts.items()}
    checkpoint = open_checkpoint(str(folder / "slices"), folder / "train_strategy.ckpt")
    for rank in range(8):
        plan = plan_rank(checkpoint, wanted, rank)
        loaded = execute(plan)
        for name, layout in layouts.items():
            region = layout.region(rank, full[name].shape)
            assert loaded[name].shape == tuple(predict[name][2])  # MindSpore's slice shape
            np.testing.assert_array_equal(loaded[name], full[name][region.as_slices()])
        assert plan.bytes_to_read == sum(array.nbytes for array in loaded.values())


@pytest.mark.parametrize("source", COMPILED)
@pytest.mark.parametrize("target", COMPILED)
def test_slices_of_one_compiled_graph_become_the_slices_of_another(
    source: str,
    target: str,
    fixtures: Path,
    compiled_layouts: Mapping[str, Mapping[str, Layout]],
    compiled_tensors: Mapping[str, np.ndarray],
    tmp_path: Path,
    want: Want,
) -> None:
    compiled = fixtures / "compiled"
    for rank in range(8):
        with np.load(compiled / f"out_{source}" / f"p{rank}.npz") as slices:
            write_checkpoint(tmp_path / f"rank_{rank}" / "c.ckpt", dict(slices))
    checkpoint = open_checkpoint(str(tmp_path), compiled / f"out_{source}" / "s0.ckpt")
    wanted = {
        name: want(compiled_tensors[name].shape, layout, checkpoint.parameters[name].dtype)
        for name, layout in compiled_layouts[f"out_{target}"].items()
    }
    for rank in range(8):
        loaded = execute(plan_rank(checkpoint, wanted, rank))
        with np.load(compiled / f"out_{target}" / f"p{rank}.npz") as made:
            for name, array in loaded.items():
                np.testing.assert_array_equal(array, made[name], strict=True)


ARRAYS: Mapping[str, np.ndarray] = {
    "scalar": np.array(2.5, np.float32),
    "odd": np.arange(7, dtype=np.int8),
    "matrix": np.arange(60, dtype=np.float64).reshape(4, 15),
    "cube": np.arange(2 * 3 * 5, dtype=np.int64).reshape(2, 3, 5),
    "complex": np.arange(6, dtype=np.complex128).reshape(2, 3) * 1j,
    "empty": np.zeros((0, 3), np.float32),
}
DTYPES = {
    "scalar": "Float32",
    "odd": "Int8",
    "matrix": "Float64",
    "cube": "Int64",
    "complex": "Complex128",
    "empty": "Float32",
}


@pytest.mark.parametrize("chunk_nbytes", [512 << 20, 16, 48])
def test_every_type_comes_back_from_chunks_of_any_size(
    chunk_nbytes: int, tmp_path: Path, want: Want
) -> None:
    write_checkpoint(tmp_path / "c.ckpt", ARRAYS, chunk_nbytes=chunk_nbytes)
    wanted = {name: want(array.shape, None, DTYPES[name]) for name, array in ARRAYS.items()}
    loaded = execute(plan_rank(open_checkpoint(str(tmp_path / "c.ckpt")), wanted, rank=0))
    for name, array in ARRAYS.items():
        np.testing.assert_array_equal(loaded[name], array, strict=True)


def test_arrays_are_aligned_own_their_memory_and_can_be_written(tmp_path: Path, want: Want) -> None:
    arrays = {f"a{size}": np.arange(size, dtype=np.int8) for size in (1, 3, 70)}
    write_checkpoint(tmp_path / "c.ckpt", arrays)
    wanted = {name: want(array.shape, None, "Int8") for name, array in arrays.items()}
    plan = plan_rank(open_checkpoint(str(tmp_path / "c.ckpt")), wanted, rank=0)
    loaded = execute(plan)
    for array in loaded.values():
        assert array.ctypes.data % 64 == 0
        array += 1
    assert execute(plan)["a3"].tolist() == [0, 1, 2]  # the file is as it was


def test_slices_lie_side_by_side_from_the_start_of_a_huge_page() -> None:
    large = SlicePlan("large", "Float32", (3, 1 << 18), ())  # 3 MiB
    odd, empty = SlicePlan("odd", "Int8", (5,), ()), SlicePlan("empty", "Float32", (0, 4), ())
    arrays = allocate([large, odd, empty])
    assert [array.shape for array in arrays.values()] == [(3, 1 << 18), (5,), (0, 4)]
    start = arrays["large"].ctypes.data
    assert start % (2 << 20) == 0
    assert arrays["odd"].ctypes.data == start + (3 << 20)


def test_bfloat16_comes_as_its_bits(tmp_path: Path, want: Want) -> None:
    bits = np.array([0x3F80, 0xC000], np.uint16)
    write_checkpoint(tmp_path / "c.ckpt", {"w": bits}, {"w": "BFloat16"})
    checkpoint = open_checkpoint(str(tmp_path / "c.ckpt"))
    loaded = execute(plan_rank(checkpoint, {"w": want((2,), None, "BFloat16")}, rank=0))
    np.testing.assert_array_equal(loaded["w"], bits, strict=True)


@pytest.mark.parametrize("window", [8, 24, 100, 10_000])
def test_a_copy_in_pieces_is_the_copy_in_one(
    window: int, tmp_path: Path, want: Want, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(file_bytes, "_MAP_NBYTES", 2 * window)
    write_checkpoint(tmp_path / "c.ckpt", {"cube": ARRAYS["cube"], "matrix": ARRAYS["matrix"]})
    middle = Layout((3,), ((), (0,)))
    wanted = {
        "cube": want((2, 3, 5), Layout((3,), ((), (0,), ())), "Int64"),
        "matrix": want((4, 15), middle, "Float64"),
    }
    checkpoint = open_checkpoint(str(tmp_path / "c.ckpt"))
    loaded = execute(plan_rank(checkpoint, wanted, rank=1))
    np.testing.assert_array_equal(loaded["cube"], ARRAYS["cube"][:, 1:2])
    np.testing.assert_array_equal(loaded["matrix"], ARRAYS["matrix"][:, 5:10])


@pytest.mark.parametrize("threads", [2, 3, 64])
def test_several_threads_copy_what_one_copies(
    threads: int, fixtures: Path, want: Want, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = fixtures / "transformer_dp2_mp4"
    checkpoint = open_checkpoint(
        str(folder / "train" / "slices"), folder / "train" / "train_strategy.ckpt"
    )
    halves = Layout((2,), ((0,),))
    wanted = {
        name: want(array.shape, replace(halves, axes=((0,), *[()] * (array.ndim - 1))))
        for name, array in weights(folder).items()
    }
    plan = plan_rank(checkpoint, wanted, rank=1)
    alone = execute(plan)
    monkeypatch.setattr("workers.resharding.execute._SHARE_NBYTES", 1)
    together = execute(plan, threads=threads)
    assert together.keys() == alone.keys()
    for name, array in alone.items():
        np.testing.assert_array_equal(together[name], array, strict=True)


def test_what_one_of_several_threads_meets_is_told(
    tmp_path: Path, want: Want, monkeypatch: pytest.MonkeyPatch
) -> None:
    arrays = {name: np.ones(1 << 14, np.float32) for name in ("a", "b", "c")}
    write_checkpoint(tmp_path / "c.ckpt", arrays)
    wanted = {name: want(array.shape) for name, array in arrays.items()}
    plan = plan_rank(open_checkpoint(str(tmp_path / "c.ckpt")), wanted, rank=0)
    monkeypatch.setattr("workers.resharding.execute._SHARE_NBYTES", 1)
    os.truncate(tmp_path / "c.ckpt", 100)
    with pytest.raises(FileChangedError, match="c.ckpt has changed"):
        execute(plan, threads=3)


def test_a_file_that_changed_after_planning_is_refused(tmp_path: Path, want: Want) -> None:
    path = tmp_path / "c.ckpt"
    write_checkpoint(path, {"w": np.zeros(4, np.float32)})
    plan = plan_rank(open_checkpoint(str(path)), {"w": want((4,))}, rank=0)
    write_checkpoint(path, {"w": np.ones(4, np.float32)})
    with pytest.raises(FileChangedError, match="c.ckpt has changed"):
        execute(plan)
    path.unlink()
    with pytest.raises(FileChangedError):
        execute(plan)


def test_slices_are_assembled_and_replicas_taken_once() -> None:
    full = np.arange(24).reshape(4, 6)
    layout = Layout.from_tensor_map((2, 3), (-1, 0))
    pieces = [(region, full[region.as_slices()]) for region in layout.regions((4, 6)).values()]
    np.testing.assert_array_equal(assemble((4, 6), pieces), full, strict=True)
