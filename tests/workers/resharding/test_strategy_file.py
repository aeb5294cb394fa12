from __future__ import annotations

import json
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from workers.resharding import strategy_proto
from workers.resharding.errors import StrategyFileError
from workers.resharding.layout import Layout
from workers.resharding.strategy_document import parse_strategy
from workers.resharding.strategy_file import read_strategy_file, write_strategy_file

STAGES = {
    "c1.w": Layout.from_tensor_map((2, 2), (1, 0), stages=(0,)),
    "c2.w": Layout.from_tensor_map((2, 2), (-1, 0), stages=(1,)),
}


@pytest.mark.parametrize(
    "configuration",
    ["gapfwdopt", "gapfwdopt2", "layfwdopt", "layinfer", "swapfwdopt", "swapfwdopt2"],
)
def test_protobuf_file_of_the_compiler(
    configuration: str, fixtures: Path, compiled_layouts: Mapping[str, Mapping[str, Layout]]
) -> None:
    file = fixtures / "compiled" / f"out_{configuration}" / "s0.ckpt"
    assert read_strategy_file(file) == compiled_layouts[f"out_{configuration}"]


def test_json_file_has_the_expanded_form_of_a_dim_over_two_axes(fixtures: Path) -> None:
    layouts = read_strategy_file(fixtures / "compiled" / "out_layinfer" / "s0.json")
    assert layouts["w"] == Layout.from_tensor_map((2, 2, 2), (1, 0))
    assert layouts["w2"] == Layout.from_tensor_map((2, 2, 2), (-1, 1, 0))
    assert layouts["w2"].folded((32, 4)) == Layout.from_tensor_map((2, 2, 2), ((-1,), (1, 0)))


def test_merged_file_and_folder_of_every_ranks_file_give_the_same(fixtures: Path) -> None:
    assert read_strategy_file(fixtures / "compiled" / "pp_merged.ckpt") == STAGES
    assert read_strategy_file(fixtures / "compiled" / "out_pp") == STAGES


def test_a_merged_file_left_in_the_folder_of_its_stages_does_no_harm(
    fixtures: Path, tmp_path: Path
) -> None:
    shutil.copytree(fixtures / "compiled" / "out_pp", tmp_path, dirs_exist_ok=True)
    shutil.copy(fixtures / "compiled" / "pp_merged.ckpt", tmp_path)
    assert read_strategy_file(tmp_path) == STAGES


def test_the_file_of_one_stage_alone_is_not_enough(fixtures: Path) -> None:
    with pytest.raises(StrategyFileError, match=r"stages \[1\] .*stages \[0\] are missing"):
        read_strategy_file(fixtures / "compiled" / "out_pp" / "s5.ckpt")


def test_a_damaged_number_of_a_stage_is_refused_at_once(tmp_path: Path) -> None:
    item = {"dev_matrix": [2], "tensor_map": [0]}
    (tmp_path / "s.json").write_text(json.dumps(document(stage=1 << 40, w=item)))
    with pytest.raises(StrategyFileError, match=r"stages \[0\] are missing"):
        read_strategy_file(tmp_path / "s.json")


def test_files_of_two_runs_in_a_folder_are_refused(fixtures: Path, tmp_path: Path) -> None:
    for name in ("gapfwdopt", "swapfwdopt"):
        file = fixtures / "compiled" / f"out_{name}" / "s0.ckpt"
        shutil.copy(file, tmp_path / f"{name}.ckpt")
    with pytest.raises(StrategyFileError, match="swapfwdopt.ckpt: w of stage 0 .* of one run"):
        read_strategy_file(tmp_path)


@pytest.mark.parametrize(
    "layouts",
    [
        {"w": Layout.from_tensor_map((2, 4), (-1, 0), optimizer_shard=-1)},
        {"b": Layout.from_tensor_map((2, 2), ((1, 0),))},  # one dim over two axes
        {"scalar": Layout((8,), ()), "w": Layout((2, 4), ((), (0, 1)), optimizer_shard=2)},
        STAGES,
        {"tied": Layout((4,), ((0,), ()), stages=(0, 1)), "a": Layout((2, 2), ((),))},
    ],
    ids=["zero", "nested", "scalar", "stages", "tied"],
)
def test_written_layouts_come_back(layouts: dict[str, Layout], tmp_path: Path) -> None:
    write_strategy_file(tmp_path / "s.ckpt", layouts)
    assert read_strategy_file(tmp_path / "s.ckpt") == layouts
    assert [file.name for file in tmp_path.iterdir()] == ["s.ckpt"]  # nothing else is left


def test_a_minus_in_the_name_of_a_parameter_is_part_of_the_name(tmp_path: Path) -> None:
    plain = {"0-block.w": Layout((2,), ((0,),)), "1-block-2.w": Layout((2,), ((),))}
    write_strategy_file(tmp_path / "plain.ckpt", plain)
    assert read_strategy_file(tmp_path / "plain.ckpt") == plain
    merged = {name: Layout((2,), ((),), stages=(0, 1)) for name in plain}
    write_strategy_file(tmp_path / "merged.ckpt", merged)
    assert read_strategy_file(tmp_path / "merged.ckpt") == merged


def test_a_parameter_with_another_layout_in_each_stage_is_taken_from_the_lowest(
    tmp_path: Path,
) -> None:
    rows, columns = ([1, -1], [-1, 1])
    for stage, tensor_map in enumerate((rows, columns)):
        (tmp_path / f"stage{stage}.json").write_text(
            json.dumps(document(stage, tied={"dev_matrix": [2, 2], "tensor_map": tensor_map}))
        )
    expected = {"tied": Layout.from_tensor_map((2, 2), rows, stages=(0,))}
    assert read_strategy_file(tmp_path) == expected


def document(stage: int = 0, **items: Any) -> dict[str, Any]:
    return {
        "current_stage": 2,
        "parallel_strategy_item": {"MatMul": {"stage": stage, "parallel_strategy": [[1]]}},
        "parallel_layout_item": items,
    }


@pytest.mark.parametrize(
    ("broken", "reason"),
    [
        (document(), "holds no layouts"),
        ({"parallel_layout_item": 3}, "parallel_layout_item is no object"),
        (document(w=[]), "parallel_layout_item.w is no object"),
        (document(w={"dev_matrix": [2]}), "w.tensor_map is None, not a list"),
        (document(w={"dev_matrix": [2], "tensor_map": ["0"]}), "w.tensor_map holds '0'"),
        (document(w={"dev_matrix": [2], "tensor_map": [[0.5]]}), "w.tensor_map holds 0.5"),
        (document(w={"dev_matrix": "2", "tensor_map": [0]}), "w.dev_matrix is '2'"),
        (document(w={"dev_matrix": [2], "tensor_map": [1]}), "w: the layout .* no such axis"),
        (document(w={"dev_matrix": [1 << 40], "tensor_map": [0]}), "matrix is impossible"),
        ({**document(w={}), "parallel_strategy_item": {"a": {}}}, "stage of a holds None"),
    ],
)
def test_a_document_that_is_no_strategy_is_refused(broken: dict[str, Any], reason: str) -> None:
    with pytest.raises(StrategyFileError, match=f"strategy s.json: .*{reason}"):
        list(parse_strategy(broken, "s.json"))


def test_stages_of_unequal_size_are_refused(tmp_path: Path) -> None:
    one, other = {"dev_matrix": [2], "tensor_map": [0]}, {"dev_matrix": [4], "tensor_map": [0]}
    (tmp_path / "s.json").write_text(json.dumps(document(a=one, b=other)))
    with pytest.raises(StrategyFileError, match="b .* is not for 2 ranks"):
        read_strategy_file(tmp_path / "s.json")


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (b"", "holds no layouts"),
        (b"{", "is no strategy, in protobuf or JSON"),
        (b"{" * 100_000, "is no strategy"),
        (b"\x0a\x03\x0a\x01w", "is it a checkpoint"),  # how a .ckpt of weights begins
        (b"\xff" * 20, "is no strategy"),
    ],
)
def test_a_file_that_is_no_strategy_is_refused(
    content: bytes, reason: str, tmp_path: Path
) -> None:
    (tmp_path / "s.ckpt").write_bytes(content)
    with pytest.raises(StrategyFileError, match=reason):
        read_strategy_file(tmp_path / "s.ckpt")


def test_a_strategy_that_is_not_there_is_refused(tmp_path: Path) -> None:
    with pytest.raises(StrategyFileError, match="cannot be read: No such file"):
        read_strategy_file(tmp_path / "s.ckpt")
    with pytest.raises(StrategyFileError, match="folder holds no .ckpt or .json"):
        read_strategy_file(tmp_path)


def test_a_strategy_file_cut_anywhere_is_an_error_or_misses_parameters(
    fixtures: Path, tmp_path: Path
) -> None:
    # Its items are fields of one message: a cut between two of them cannot be seen here, only
    # where the parameter is looked for.
    content = (fixtures / "compiled" / "out_layinfer" / "s0.ckpt").read_bytes()
    whole = read_strategy_file(fixtures / "compiled" / "out_layinfer" / "s0.ckpt")
    for length in range(len(content)):
        (tmp_path / "s.ckpt").write_bytes(content[:length])
        try:
            layouts = read_strategy_file(tmp_path / "s.ckpt")
        except StrategyFileError:
            continue
        assert len(layouts) < len(whole)
        assert layouts.items() <= whole.items()


@given(place=st.integers(0, 10**6), flip=st.integers(1, 255))
def test_a_damaged_byte_is_an_error_or_leaves_layouts(
    fixtures: Path, tmp_path_factory: pytest.TempPathFactory, place: int, flip: int
) -> None:
    content = bytearray((fixtures / "compiled" / "out_layfwdopt" / "s0.ckpt").read_bytes())
    content[place % len(content)] ^= flip
    path = tmp_path_factory.getbasetemp() / "damaged.ckpt"
    path.write_bytes(content)
    try:
        layouts = read_strategy_file(path)
    except StrategyFileError:
        return
    assert all(isinstance(layout, Layout) for layout in layouts.values())


def test_mindspore_reads_what_was_written(tmp_path: Path) -> None:
    from mindspore.parallel import build_searched_strategy

    layouts = {
        "w": Layout.from_tensor_map((2, 2, 2), (1, -1), optimizer_shard=-1),
        "w2": Layout.from_tensor_map((2, 2, 2), ((-1,), (1, 0))),
    }
    write_strategy_file(tmp_path / "s.ckpt", layouts)
    strategy = build_searched_strategy(str(tmp_path / "s.ckpt"))
    assert sorted(strategy) == ["w", "w2"]
    assert list(strategy["w"].dev_matrix[0].dim) == [2, 2, 2]
    assert list(strategy["w"].tensor_map[0].dim) == [1, -1]
    # The replicas of rank 0 are 0, 1, 4, 5; MindSpore's step is (5 - 0) // 3.
    assert (strategy["w"].opt_weight_shard_size, strategy["w"].opt_weight_shard_step) == (-1, 1)
    assert [list(axes.dim) for axes in strategy["w2"].tensor_map] == [[-1], [1, 0]]


@pytest.mark.parametrize("configuration", ["gapfwdopt", "gapfwdopt2", "layfwdopt", "swapfwdopt2"])
def test_layouts_are_written_with_the_very_numbers_of_the_compiler(
    configuration: str, fixtures: Path, tmp_path: Path
) -> None:
    made = fixtures / "compiled" / f"out_{configuration}" / "s0.ckpt"
    write_strategy_file(tmp_path / "s.ckpt", read_strategy_file(made))
    ours = strategy_proto.decode((tmp_path / "s.ckpt").read_bytes())
    theirs = strategy_proto.decode(made.read_bytes())
    assert ours["parallel_layout_item"] == theirs["parallel_layout_item"]
