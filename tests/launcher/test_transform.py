"""The command that re-shards files, on what MindSpore saved."""

from __future__ import annotations

import errno
import json
import os
import re
import shutil
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from launcher import transform as transform_module
from launcher.cli import main
from workers.resharding import conversion as conversion_module
from workers.resharding.checkpoint import open_checkpoint
from workers.resharding.checkpoint_file import write_checkpoint
from workers.resharding.strategy_file import read_strategy_file, write_strategy_file

FIXTURES = Path(__file__).parents[1] / "fixtures"
ROOT = Path(__file__).parents[2]
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


def test_what_an_ended_run_wrote_does_not_count_if_a_file_of_it_was_removed(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(conversion_module, "TASK_NBYTES", 1024)
    real, numbers = transform_module.carry_out, []

    def carry_out(conversion: Any, number: int, folder: Path) -> int:
        if len(numbers) == 3:
            (folder / "parallel-2_2.ckpt").unlink()  # to make room, say
            raise KeyboardInterrupt
        numbers.append(number)
        return real(conversion, number, folder)

    monkeypatch.setattr(transform_module, "carry_out", carry_out)
    assert transform(tmp_path / "whole", "--processes", "1") == 130
    monkeypatch.setattr(transform_module, "carry_out", real)
    capsys.readouterr()
    assert transform(tmp_path / "whole", "--processes", "1", "--json") == 0
    assert report(capsys)["bytes_kept"] == 0
    np.testing.assert_array_equal(
        loaded(tmp_path / "whole" / "parallel-2_2.ckpt")["matmul_weight"], weight()
    )


def test_a_transform_that_was_killed_goes_on_and_makes_the_same_files(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    code = (
        "import os, signal, sys\n"
        "from launcher import cli, transform\n"
        "from workers.resharding import conversion\n"
        "conversion.TASK_NBYTES, real, done = 1024, transform.carry_out, []\n"
        "def carry_out(*task):\n"
        "    if len(done) == 3:\n"
        "        os.kill(os.getpid(), signal.SIGKILL)\n"
        "    done.append(real(*task))\n"
        "transform.carry_out = carry_out\n"
        "sys.exit(cli.main(sys.argv[1:]))\n"
    )
    flags = ["--processes", "1", "--format", "safetensors"]
    command = ["transform", SOURCE[0], str(tmp_path / "killed"), *SOURCE[1:], *flags]
    killed = subprocess.run([sys.executable, "-c", code, *command], cwd=ROOT, timeout=60)
    assert killed.returncode == -signal.SIGKILL
    assert not (tmp_path / "killed").exists()
    monkeypatch.setattr(conversion_module, "TASK_NBYTES", 1024)
    assert transform(tmp_path / "killed", *flags, "--json") == 0
    assert report(capsys)["bytes_kept"] == 3 * 1024
    assert transform(tmp_path / "straight", *flags) == 0
    made = [{p.name: p.read_bytes() for p in (tmp_path / name).iterdir()} for name in
            ("killed", "straight")]
    assert made[0] == made[1]
    assert set(made[0]) == {"part0.safetensors", "param_name_map.json"}


def test_mindspore_loads_unified_files_whole_and_cut_for_a_rank(tmp_path: Path) -> None:
    import mindspore

    case = FIXTURES / "matmul_2x4_col" / "train"
    strategy = str(case / "train_strategy.ckpt")
    command = ["transform", str(case / "slices"), str(tmp_path / "unified")]
    assert main([*command, "--strategy", strategy, "--format", "safetensors"]) == 0
    with np.load(case.parent / "reference.npz") as reference:
        whole = reference["param:matmul_weight"]
    for wanted, more in (
        (whole, {}),
        (whole[:, :4], {"predict_strategy": strategy}),  # what this process, rank 0, holds of 4
    ):
        network = mindspore.nn.Cell()
        zeros = mindspore.Tensor(np.zeros(wanted.shape, np.float32))
        network.insert_param_to_cell("w", mindspore.Parameter(zeros, name="matmul_weight"))
        folder = str(tmp_path / "unified")
        mindspore.load_distributed_checkpoint(
            network, format="safetensors", unified_safetensors_dir=folder, **more
        )
        np.testing.assert_array_equal(network.w.asnumpy(), wanted)


@pytest.mark.parametrize("error", [errno.ENOSPC, errno.EIO])
def test_a_disk_that_fails_while_it_is_written_is_no_bad_input(
    error: int, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: object) -> int:
        raise OSError(error, os.strerror(error))

    monkeypatch.setattr(transform_module, "carry_out", fail)
    assert transform(tmp_path / "whole", "--processes", "1") == 1
    said = f"whole: cannot be written: {os.strerror(error)}; the same command, given again"
    assert said in capsys.readouterr().err
    assert not (tmp_path / "whole").exists()


def test_a_tensor_of_an_unknown_type_is_left_out_only_if_it_may_be(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    write_checkpoint(tmp_path / "a.ckpt", {"w": weight(), "emb": np.ones(2, np.float32)})
    content = (tmp_path / "a.ckpt").read_bytes()
    at = content.rindex(b"Float32")
    (tmp_path / "a.ckpt").write_bytes(content[:at] + b"Float_8" + content[at + 7 :])
    command = ["transform", str(tmp_path / "a.ckpt"), str(tmp_path / "whole"), "--json"]
    assert main(command) == 2
    told = "emb: elements of Float_8 .* are not supported; to go on without, --allow-missing 'emb'"
    assert re.search(told, capsys.readouterr().err)
    assert main([*command, "--allow-missing", "e*"]) == 0
    assert report(capsys)["left_out"] == {"no tensor of a known type": ["emb"]}


def test_a_process_of_transform_never_hears_of_ctrl_c() -> None:
    # It would say so with a traceback, the earlier in its life the longer.
    code = "import signal; print(signal.SIGINT in signal.pthread_sigmask(signal.SIG_BLOCK, ()))"
    with transform_module._without_interrupts():
        child = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert child.stdout == "True\n"
    assert signal.SIGINT not in signal.pthread_sigmask(signal.SIG_BLOCK, ())


def test_what_the_strategy_names_and_no_file_has_is_told(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    layouts = read_strategy_file(CASE / "train_strategy.ckpt")
    write_strategy_file(tmp_path / "more.ckpt", {**layouts, "head": layouts["matmul_weight"]})
    source, target = SOURCE[0], str(tmp_path / "whole")
    strategy = str(tmp_path / "more.ckpt")
    assert main(["transform", source, target, "--strategy", strategy, "--json"]) == 0
    assert report(capsys)["left_out"]["in the strategy, but in no file"] == ["head"]


def test_files_that_look_swapped_are_told_while_they_are_transformed(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    shutil.copytree(FIXTURES / "matmul_2x4_col" / "train", tmp_path / "train")
    ranks = tmp_path / "train" / "slices"
    for old, new in (("rank_1", "x"), ("rank_2", "rank_1"), ("x", "rank_2")):
        (ranks / old).rename(ranks / new)
    strategy = str(tmp_path / "train" / "train_strategy.ckpt")
    command = ["transform", str(ranks), str(tmp_path / "whole"), "--strategy", strategy]
    assert main(command) == 0
    assert "warning: matmul_weight: " in capsys.readouterr().err
    command[2] = str(tmp_path / "other")
    assert main([*command, "--verify", "replicas"]) == 2


@pytest.mark.parametrize(
    ("name", "becomes"),
    [
        ("rank_{}.ckpt", "net.ckpt"),
        ("rank_{}-3_1.ckpt", "net-3_1.ckpt"),
        ("gpt_rank_{}-3_1.ckpt", "gpt-3_1.ckpt"),
    ],
)
def test_a_new_file_has_the_name_of_the_source_without_its_rank(
    name: str, becomes: str, tmp_path: Path
) -> None:
    shutil.copytree(CASE, tmp_path / "train")
    for rank in range(8):
        folder = tmp_path / "train" / "slices" / f"rank_{rank}"
        (folder / "parallel-2_2.ckpt").rename(folder / name.format(rank))
    source = str(tmp_path / "train" / "slices")
    assert main(["transform", source, str(tmp_path / "whole"), *SOURCE[1:]]) == 0
    assert [path.name for path in (tmp_path / "whole").iterdir()] == [becomes]


def test_at_least_one_process_is_needed(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert transform(tmp_path / "whole", "--processes", "0") == 2
    assert "--processes: 0 is none; give 1 or more" in capsys.readouterr().err


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
    assert transform(tmp_path / "whole") == 1
    assert "bytes are needed, " in capsys.readouterr().err
    assert not (tmp_path / "whole").exists()
