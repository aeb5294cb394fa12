"""The command that re-shards files, on what MindSpore saved."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from launcher import transform as transform_module
from launcher.cli import main
from workers.resharding import conversion as conversion_module
from workers.resharding.checkpoint import open_checkpoint

FIXTURES = Path(__file__).parents[1] / "fixtures"
CASE = FIXTURES / "layout_dp_mp" / "train_zero"
SOURCE = [str(CASE / "slices"), "--strategy", str(CASE / "train_strategy.ckpt")]


def transform(target: Path, *flags: str) -> int:
    return main(["transform", SOURCE[0], str(target), *SOURCE[1:], *flags])


def report(capsys: pytest.CaptureFixture[str]) -> dict[str, Any]:
    document: dict[str, Any] = json.loads(capsys.readouterr().out)
    return document


def weight() -> np.ndarray:
    with np.load(CASE.parent / "reference.npz") as reference:
        array: np.ndarray = reference["param:matmul_weight"]
        return array


def loaded(path: Path) -> dict[str, np.ndarray]:
    import mindspore

    parameters = mindspore.load_checkpoint(str(path), format=path.suffix[1:])
    return {name: parameter.asnumpy() for name, parameter in parameters.items()}


@pytest.mark.parametrize(
    ("suffix", "name"), [("ckpt", "parallel-2_2.ckpt"), ("safetensors", "part0.safetensors")]
)
def test_slices_become_whole_tensors(suffix: str, name: str, tmp_path: Path) -> None:
    assert transform(tmp_path / "whole", "--format", suffix) == 0
    parameters = loaded(tmp_path / "whole" / name)
    assert list(parameters) == ["matmul_weight"]  # and not its momentum
    np.testing.assert_array_equal(parameters["matmul_weight"], weight(), strict=True)


def test_optimizer_state_comes_when_it_is_asked_for(tmp_path: Path) -> None:
    assert transform(tmp_path / "whole", "--with-optimizer-state") == 0
    parameters = loaded(tmp_path / "whole" / "parallel-2_2.ckpt")
    np.testing.assert_array_equal(parameters["moments.matmul_weight"], 2 * weight() + 1)


def test_several_processes_write_what_one_writes(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(conversion_module, "TASK_NBYTES", 1024)
    other = FIXTURES / "matmul_2x4_col" / "train" / "train_strategy.ckpt"
    for processes in ("1", "2"):
        flags = ("--processes", processes, "--target-strategy", str(other), "--json")
        assert transform(tmp_path / processes, *flags) == 0
        assert len(report(capsys)["files"]) == 8
    files = [sorted((tmp_path / n).rglob("*.ckpt")) for n in ("1", "2")]
    assert [path.read_bytes() for path in files[0]] == [path.read_bytes() for path in files[1]]
    back = open_checkpoint(str(tmp_path / "2"), other)
    assert back.parameters["matmul_weight"].full_shape == weight().shape


def test_a_run_that_was_ended_goes_on_where_it_was(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(conversion_module, "TASK_NBYTES", 1024)
    real, numbers = transform_module.carry_out, []

    def carry_out(conversion: Any, number: int, folder: Path) -> int:
        if len(numbers) == 3:
            raise KeyboardInterrupt
        numbers.append(number)
        return real(conversion, number, folder)

    monkeypatch.setattr(transform_module, "carry_out", carry_out)
    assert transform(tmp_path / "whole", "--processes", "1") == 130
    assert not (tmp_path / "whole").exists()
    monkeypatch.setattr(transform_module, "carry_out", real)
    capsys.readouterr()
    assert transform(tmp_path / "whole", "--processes", "1", "--json") == 0
    assert report(capsys)["bytes_kept"] == 3 * 1024
    np.testing.assert_array_equal(
        loaded(tmp_path / "whole" / "parallel-2_2.ckpt")["matmul_weight"], weight()
    )


def test_progress_is_lines_where_there_is_no_terminal(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(conversion_module, "TASK_NBYTES", 3072)
    assert transform(tmp_path / "whole", "--processes", "1", "--verify", "replicas") == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[:2] == [" 50 %  3.0 KiB of 6.0 KiB", "100 %  6.0 KiB of 6.0 KiB"]
    assert lines[2].startswith("checked      replicas of ")


def test_a_target_that_is_there_is_refused(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "old.ckpt").touch()
    assert transform(tmp_path, "--json") == 2
    printed = capsys.readouterr()
    assert json.loads(printed.out)["status"] == "refused"
    assert f"launcher: transform: {tmp_path}: it is not empty" in printed.err


def test_a_disk_without_room_is_refused_before_anything_is_written(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    class Full:
        f_bavail, f_frsize = 1, 512

    monkeypatch.setattr(transform_module.os, "statvfs", lambda _: Full)
    assert transform(tmp_path / "whole") == 2
    assert "bytes are needed, " in capsys.readouterr().err
    assert not (tmp_path / "whole").exists()
