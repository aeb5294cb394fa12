from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from workers.resharding import conversion as conversion_module
from workers.resharding.checkpoint import SlicedCheckpoint, open_checkpoint
from workers.resharding.conversion import plan_conversion
from workers.resharding.convert import carry_out, write_headers
from workers.resharding.errors import LayoutError, MissingParametersError
from workers.resharding.layout import Layout
from workers.resharding.optimizer_state import is_optimizer_state

COLUMNS, ROWS = Layout((2, 2), ((), (1,))), Layout((4,), ((0,), ()))
W = np.arange(8 * 12, dtype=np.float32).reshape(8, 12)
TENSORS = {"w": W, "v": W[:, :4].astype(np.float16), "s": np.array(3.5, np.float64)}


@pytest.fixture
def checkpoint(tmp_path: Path, save: Callable[..., tuple[str, Path]]) -> SlicedCheckpoint:
    layouts = {"w": COLUMNS, "v": ROWS, "s": Layout((4,), ())}
    return open_checkpoint(*save(tmp_path / "source", TENSORS, layouts))


def convert(
    checkpoint: SlicedCheckpoint, targets: dict[str, Layout] | None, name: str, folder: Path
) -> list[Path]:
    conversion = plan_conversion(checkpoint, list(TENSORS), targets, name)
    write_headers(conversion, folder)
    for number in range(len(conversion.tasks)):
        carry_out(conversion, number, folder)
    return [folder / output.path for output in conversion.outputs]


@pytest.mark.parametrize("task_nbytes", [64 << 20, 100, 16, 1])
@pytest.mark.parametrize("suffix", ["ckpt", "safetensors"])
def test_mindspore_reads_the_whole_tensors_whatever_the_size_of_a_task(
    suffix: str,
    task_nbytes: int,
    checkpoint: SlicedCheckpoint,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    import mindspore

    monkeypatch.setattr(conversion_module, "TASK_NBYTES", task_nbytes)
    (path,) = convert(checkpoint, None, f"net.{suffix}", tmp_path)
    loaded = mindspore.load_checkpoint(str(path), format=suffix)
    assert set(loaded) == set(TENSORS)
    for name, array in TENSORS.items():
        np.testing.assert_array_equal(loaded[name].asnumpy(), array, strict=True)


@pytest.mark.parametrize("ranks", [1, 2, 3, 6])
def test_slices_of_four_ranks_become_those_of_any_number(
    ranks: int, checkpoint: SlicedCheckpoint, tmp_path: Path
) -> None:
    targets = {"w": Layout((ranks,), ((), (0,)))}
    paths = convert(checkpoint, targets, "net.ckpt", tmp_path)
    assert [path.parent.name for path in paths] == [f"rank_{rank}" for rank in range(ranks)]
    for rank, path in enumerate(paths):
        held = open_checkpoint(str(path)).parameters
        assert held["w"].full_shape == (8, 12 // ranks)
        assert held["v"].full_shape == (8, 4)  # what no target layout names is whole
    back = SlicedCheckpoint(*vars(open_checkpoint(str(tmp_path / "rank_0"))).values())
    assert back.parameters["s"].full_shape == ()


def test_several_files_of_whole_tensors_share_them_and_a_map_says_how(
    checkpoint: SlicedCheckpoint, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(conversion_module, "PART_NBYTES", 300)
    paths = convert(checkpoint, None, "net.safetensors", tmp_path / "unified")
    assert [path.name for path in paths] == ["part0.safetensors", "part1.safetensors"]
    document = json.loads((tmp_path / "unified" / "param_name_map.json").read_text())
    assert document["weight_map"]["w"] != document["weight_map"]["v"]
    parts = open_checkpoint(str(tmp_path / "unified"))  # a folder that shares the parameters
    assert {name: saved.full_shape for name, saved in parts.parameters.items()} == {
        name: array.shape for name, array in TENSORS.items()
    }


def test_a_tensor_that_is_larger_than_a_file_may_be_makes_no_empty_files(
    checkpoint: SlicedCheckpoint, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(conversion_module, "PART_NBYTES", 50)  # 456 bytes are not ten files
    paths = convert(checkpoint, None, "net.safetensors", tmp_path)
    assert [path.name for path in paths] == [f"part{number}.safetensors" for number in range(3)]


def test_slices_have_no_map_of_whole_tensors_not_even_those_of_one_rank(
    checkpoint: SlicedCheckpoint,
) -> None:
    for ranks in (1, 2):
        targets = {"w": Layout((ranks,), ((), (0,)))}
        conversion = plan_conversion(checkpoint, ["w", "v"], targets, "net.safetensors")
        assert conversion.parameter_map is None


def test_what_may_be_absent_counts_for_the_number_of_ranks(checkpoint: SlicedCheckpoint) -> None:
    targets = {"w": Layout((2,), ((), (0,)), stages=(0,)), "head": Layout((2,), ((0,),), 0, (1,))}
    conversion = plan_conversion(checkpoint, ["w", "v"], targets, "net.ckpt", {"head"})
    assert [sorted(output.slices) for output in conversion.outputs] == [
        ["v", "w"],
        ["v", "w"],
        ["v"],
        ["v"],
    ]


def test_a_file_without_a_tensor_is_refused(checkpoint: SlicedCheckpoint) -> None:
    with pytest.raises(ValueError, match="no parameter to put into net.ckpt"):
        plan_conversion(checkpoint, [], None, "net.ckpt")


def test_a_conversion_is_another_one_when_anything_it_depends_on_is(
    checkpoint: SlicedCheckpoint,
) -> None:
    rows, columns = {"w": ROWS}, {"w": COLUMNS}
    digests = [
        plan_conversion(checkpoint, names, targets, name).digest
        for names, targets, name in (
            (["w", "v"], rows, "net.ckpt"),
            (["w"], rows, "net.ckpt"),
            (["w", "v"], columns, "net.ckpt"),
            (["w", "v"], None, "net.ckpt"),
            (["w", "v"], rows, "net.safetensors"),
        )
    ]
    assert len(set(digests)) == 5
    assert digests[0] == plan_conversion(checkpoint, ["w", "v"], rows, "net.ckpt").digest


def test_a_target_that_does_not_fit_is_refused(checkpoint: SlicedCheckpoint) -> None:
    with pytest.raises(MissingParametersError, match="head"):
        plan_conversion(checkpoint, ["w"], {"head": ROWS}, "net.ckpt")
    with pytest.raises(LayoutError, match="w: .* cannot be cut into 5"):
        plan_conversion(checkpoint, ["w"], {"w": Layout((5,), ((0,), ()))}, "net.ckpt")


@pytest.mark.parametrize(
    ("name", "state"),
    [
        ("moments.fc.weight", True),
        ("adam_m.fc.weight", True),
        ("moments.other", False),  # there is no weight "other"
        ("fc.weight", False),
        ("global_step", True),
        ("step_num", False),
    ],
)
def test_optimizer_state_is_known_by_its_prefix_and_its_weight(name: str, state: bool) -> None:
    assert is_optimizer_state(name, {"fc.weight", name}) is state


def test_a_cell_may_have_the_name_that_an_optimizer_gives_to_its_state() -> None:
    network = {"weight", "linear.weight"}  # a parameter, and a cell nn.Dense
    assert not is_optimizer_state("linear.weight", network)
    assert is_optimizer_state("linear.weight", {"moments.weight", *network})  # of nn.FTRL


@pytest.mark.parametrize(
    "words", [("exp_avg_sq_", "exp_avg_sq_row_", "exp_avg_sq_col_"), ("mu_", "eta_")]
)
def test_state_may_be_joined_to_the_name_of_its_weight(words: tuple[str, ...]) -> None:
    state = {f"{word}fc.weight" for word in words}
    assert all(is_optimizer_state(name, {"fc.weight", *state}) for name in state)
    for name in state:
        assert not is_optimizer_state(name, {"fc.weight", name})  # a cell may be called mu_fc
        assert not is_optimizer_state(name, state)
