"""The command that shows what files hold."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from launcher.cli import main
from workers.resharding.checkpoint_file import write_checkpoint
from workers.resharding.errors import StrategyFileError
from workers.resharding.strategy_file import read_strategy_file, write_strategy_file

FIXTURES = Path(__file__).parents[1] / "fixtures"
CASE = FIXTURES / "layout_dp_mp" / "train_zero"
TABLES = Path(__file__).parents[2] / "rank_tables"


def inspected(capsys: pytest.CaptureFixture[str], *flags: str | Path) -> dict[str, Any]:
    assert main(["inspect", *map(str, flags), "--json"]) == 0
    document: dict[str, Any] = json.loads(capsys.readouterr().out)
    return document


def shown(capsys: pytest.CaptureFixture[str], *flags: str | Path) -> list[str]:
    assert main(["inspect", *map(str, flags)]) == 0
    return [line.rstrip() for line in capsys.readouterr().out.splitlines()]


@pytest.mark.parametrize("suffix", ["ckpt", "safetensors"])
def test_a_checkpoint_shows_each_tensor(
    suffix: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / f"net.{suffix}"
    write_checkpoint(path, {"w": np.zeros((8, 16), np.float32), "s": np.array(1.0)})
    document = inspected(capsys, path)
    assert (document["kind"], document["format"]) == ("checkpoint", suffix)
    assert document["parameters"]["w"] == {
        "dtype": "Float32",
        "shape": [8, 16],
        "bytes": 512,
        "chunks": 1,
    }
    assert any(line.split() == ["w", "Float32", "8", "x", "16", "512", "B", "1"] for line in
               shown(capsys, path))


def test_a_strategy_shows_who_holds_what(capsys: pytest.CaptureFixture[str]) -> None:
    lines = shown(capsys, CASE / "train_strategy.ckpt")
    assert lines[0].endswith("train_strategy.ckpt: 8 ranks")
    # Device matrix 2 x 2 x 2: the last axis splits rows, the middle one columns, and the replicas
    # along the first share the rows of their part.
    assert lines[2:] == [
        "device matrix [2, 2, 2], tensor map [0, 1], optimizer shards -1, on ranks 0-7",
        "  +---+---+",
        "  | 0 | 2 |",
        "  +---+---+",
        "  | 4 | 6 |",
        "  +---+---+",
        "  | 1 | 3 |",
        "  +---+---+",
        "  | 5 | 7 |",
        "  +---+---+",
        "  matmul_weight",
        "  moments.matmul_weight",
    ]


def test_slices_and_their_strategy_show_whole_shapes(capsys: pytest.CaptureFixture[str]) -> None:
    flags = (CASE / "slices", "--strategy", CASE / "train_strategy.ckpt")
    document = inspected(capsys, *flags)
    assert document["kind"] == "sliced checkpoint"
    assert document["parameters"]["matmul_weight"]["full_shape"] == [96, 16]
    assert len(document["files"]) == 8
    assert "  matmul_weight Float32 [96, 16]" in shown(capsys, *flags)


def test_slices_that_the_strategy_does_not_name_are_not_shown_as_whole(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    layouts = read_strategy_file(CASE / "train_strategy.ckpt")
    write_strategy_file(tmp_path / "s.ckpt", {"matmul_weight": layouts["matmul_weight"]})
    flags = (CASE / "slices", "--strategy", tmp_path / "s.ckpt")
    found = inspected(capsys, *flags)["parameters"]
    assert [(item["in_strategy"], item["unnamed_slices"]) for item in found.values()] == [
        (True, False),  # matmul_weight
        (False, True),  # moments.matmul_weight
    ]
    assert shown(capsys, *flags)[-3:] == [
        "",
        "slices that the strategy does not name, on ranks 0-7",
        "  moments.matmul_weight Float32 [24, 8]",
    ]


@pytest.mark.parametrize("name", ["train_strategy.ckpt", "stages"])
def test_stages_of_a_pipeline_are_told(name: str, capsys: pytest.CaptureFixture[str]) -> None:
    root = FIXTURES / "two_stage_mlp"
    path = next(path for path in root.rglob(name))
    document = inspected(capsys, path)
    assert document["kind"] == "strategy"
    assert {tuple(item["stages"]) for item in document["parameters"].values()} == {(0,), (1,)}


def test_the_strategy_of_a_later_stage_is_shown_alone(capsys: pytest.CaptureFixture[str]) -> None:
    path = FIXTURES / "compiled" / "out_pp" / "s4.ckpt"  # of the first rank of stage 1
    document = inspected(capsys, path)
    assert (document["kind"], document["ranks"]) == ("strategy", 4)
    layouts = document["parameters"].values()
    assert {(*item["stages"], *item["ranks"]) for item in layouts} == {(1, 4, 5, 6, 7)}
    with pytest.raises(StrategyFileError, match=r"stages \[1\] of a pipeline, stages \[0\] are m"):
        read_strategy_file(path)


def test_a_rank_table_shows_its_devices(capsys: pytest.CaptureFixture[str]) -> None:
    document = inspected(capsys, TABLES / "hccl_1x2.json")
    assert document["kind"] == "rank table"
    assert [device["rank"] for device in document["devices"]] == [0, 1]
    assert shown(capsys, TABLES / "hccl_1x2.json")[0].endswith("hccl_1x2.json: 2 ranks")


def test_what_is_none_of_them_is_refused_with_what_each_reader_said(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "x").write_bytes(b"nothing of the kind")
    assert main(["inspect", str(tmp_path / "x")]) == 2
    message = capsys.readouterr().err
    assert "if the file is a checkpoint" in message
    assert "it is no strategy" in message


def test_what_begins_like_json_and_is_no_text_is_refused(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "x.json").write_bytes(b'{"a": \xff}')
    assert main(["inspect", str(tmp_path / "x.json")]) == 2
    assert "can't decode byte 0xff" in capsys.readouterr().err


def test_a_pipe_is_refused_and_not_waited_for(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    os.mkfifo(tmp_path / "pipe.ckpt")
    assert main(["inspect", str(tmp_path / "pipe.ckpt")]) == 2
    assert "pipe.ckpt: cannot be read: it is a pipe" in capsys.readouterr().err


def test_the_name_of_a_tensor_cannot_command_the_terminal(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path, name = tmp_path / "net.ckpt", "w\x1b[2J\rü"
    write_checkpoint(path, {name: np.ones(3, np.float32)})
    assert shown(capsys, path)[2].split()[0] == r"w\x1b[2J\rü"
    assert list(inspected(capsys, path)["parameters"]) == [name]
    path.write_bytes(path.read_bytes() * 2)
    assert main(["inspect", str(path)]) == 2
    assert r"w\x1b[2J\rü has 24 bytes" in capsys.readouterr().err


def test_an_array_is_called_one(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    np.save(tmp_path / "x.npy", np.zeros(3))
    assert main(["inspect", str(tmp_path / "x.npy")]) == 2
    assert "x.npy is an array, no checkpoint" in capsys.readouterr().err
