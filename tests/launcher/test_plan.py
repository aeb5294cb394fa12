"""Layouts and plans, with a stand-in for the child that works out the layouts."""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from launcher import layout_command, layout_report, plan_command
from launcher.errors import JobError, ReportError
from launcher.job import Job

MakeJob = Callable[..., Job]
CASE = Path(__file__).parents[1] / "fixtures" / "matmul_2x4_col" / "train"


def _collective(op: str, after: str, before: str | None) -> dict[str, Any]:
    group = {"op": op, "ranks": [0, 1], "rank_size": 2, "bytes": 64}
    return group | {"after": after, "before": before, "tensor": "y"}


def _operator(op: str, scope: str, **rest: bool) -> dict[str, Any]:
    return {"op": op, "scope": scope, "strategy": [], "stage": 0, **rest}


REPORT: dict[str, Any] = {
    "parameters": {
        "matmul_weight": {
            "device_matrix": [2, 4],
            "tensor_map": [-1, 0],
            "full_shape": [96, 16],
            "slice_shape": [96, 4],
            "dtype": "Float32",
            "stages": [0],
        }
    },
    "operators": [
        _operator("MatMul", "fc", generated=False, sliced=True),
        _operator("Erfinv", "head", generated=True, sliced=False),
    ],
    "collectives": [
        _collective("AllGather", "MatMul", "Erfinv"),
        _collective("AllReduce", "MatMul", "Erfinv"),
        _collective("AllGather", "Erfinv", None),
    ],
    "activation_bytes": 512,
}
ECHO = "import json, os, sys; request = json.load(sys.stdin); "


@pytest.fixture
def child(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Callable[[str], None]:
    """Return a way to set the program of the child; at first it prints REPORT."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "net.py").touch()

    def set_program(code: str) -> None:
        monkeypatch.setattr(layout_report, "CHILD", (sys.executable, "-c", ECHO + code))

    set_program(f"json.dump({REPORT!r}, sys.stdout)")
    return set_program


@pytest.fixture
def job(make_job: MakeJob, child: Callable[[str], None]) -> Job:
    pattern = str(CASE / "slices" / "rank_{rank}" / "parallel-2_2.ckpt")
    strategy = str(CASE / "train_strategy.ckpt")
    return make_job(ranks=8, checkpoint=pattern, strategy=strategy, output="out", threads=1)


def test_layouts_are_printed_as_the_child_reports_them(
    job: Job, capsys: pytest.CaptureFixture[str]
) -> None:
    assert layout_command.execute(job, as_json=True) == 0
    assert json.loads(capsys.readouterr().out) == {"parameters": REPORT["parameters"]}
    assert layout_command.execute(job, as_json=True, program=True) == 0
    assert json.loads(capsys.readouterr().out) == REPORT


def test_the_program_is_printed_as_tables(job: Job, capsys: pytest.CaptureFixture[str]) -> None:
    layout_command.execute(job, program=True)
    lines = capsys.readouterr().out.splitlines()
    (erfinv,) = [line for line in lines if line.startswith("Erfinv")]
    assert erfinv.split() == ["Erfinv", "head", "generated,", "runs", "whole"]
    (reduce,) = [line for line in lines if line.startswith("AllReduce")]
    assert reduce.split() == ["AllReduce", "0-1", "64", "B", "MatMul", "Erfinv"]


def test_layouts_of_stages_are_those_of_equally_many_ranks(make_job: MakeJob) -> None:
    with pytest.raises(JobError, match="3 do not divide 8 ranks"):
        layout_command.execute(make_job(ranks=8, pipeline_stages=3))


def test_the_table_says_the_stages_of_parameters_if_there_are_several(
    job: Job, child: Callable[[str], None], capsys: pytest.CaptureFixture[str]
) -> None:
    weight = REPORT["parameters"]["matmul_weight"]
    child(f"json.dump({REPORT | {'parameters': {'w': weight | {'stages': [0, 2]}}}!r}, sys.stdout)")
    layout_command.execute(job)
    title, row = capsys.readouterr().out.splitlines()
    assert title.split()[-1] == "stages" and row.split()[-2:] == ["0,", "2"]


def test_layouts_are_printed_as_a_table(job: Job, capsys: pytest.CaptureFixture[str]) -> None:
    layout_command.execute(job, as_json=False)
    row = capsys.readouterr().out.splitlines()[1]
    assert row.split("  ")[0] == "matmul_weight"
    assert "[96, 16]    [96, 4]      [2, 4]         [-1, 0]" in row


def test_the_child_is_asked_for_the_network_of_the_job(
    job: Job, child: Callable[[str], None], tmp_path: Path
) -> None:
    child("json.dump([request, dict(os.environ)], sys.stdout)")
    answer: Any = layout_report.ask(job, 8, {"MS_ROLE": "MS_WORKER"}, threads=2)
    request, environment = answer
    assert request == {
        "network": "net:make",
        "network_args": {},
        "predict_data": "net:data",
        "task": "predict",
        "parallel_mode": "semi_auto_parallel",
        "batch_size": None,
        "ranks": 8,
        "pipeline_stages": 1,
        "dataset_strategy": "full_batch",
        "search_path": [str(tmp_path)],
        "launcher": os.getpid(),
    }
    assert environment["OMP_NUM_THREADS"] == "2"
    assert "MS_ROLE" not in environment


def test_what_the_child_refuses_is_said_in_its_own_words(
    job: Job, child: Callable[[str], None]
) -> None:
    child("sys.exit(print('net:make: no such name', file=sys.stderr) or 2)")
    with pytest.raises(ReportError, match="^net:make: no such name$") as caught:
        layout_command.execute(job, as_json=False)
    assert caught.value.exit_code == 2


def test_a_child_that_dies_without_a_word_is_an_error(
    job: Job, child: Callable[[str], None]
) -> None:
    child("os.kill(os.getpid(), 9)")
    with pytest.raises(ReportError, match="exit code 137"):
        layout_report.ask(job, 8, {}, threads=1)


def test_a_plan_says_what_every_rank_would_read(
    job: Job, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    # wanted: columns, 4 of 16 on each rank, as saved: 96 x 4 float32 of its own file
    assert plan_command.execute(job, as_json=True) == 0
    plan = json.loads(capsys.readouterr().out)
    own_file = str(CASE / "slices" / "rank_5" / "parallel-2_2.ckpt")
    assert plan["ranks"][5]["bytes_to_read"] == 96 * 4 * 4
    assert plan["ranks"][5]["reads"] == {own_file: 1536}
    assert plan["ranks"][5]["environment"]["RANK_ID"] == "5"
    assert plan["ranks"][5]["log"] == str(tmp_path / "out" / "logs" / "rank_5.log")
    assert plan["ranks"][5]["cores"] == []
    assert plan["ranks"][5]["memory"]["slices"] == 1536
    assert plan["ranks"][5]["memory"]["activations"] == 512
    assert plan["parameters"] == REPORT["parameters"]
    assert plan["unused_tensors"] == ["moments.matmul_weight"]


def test_a_plan_reads_well(job: Job, capsys: pytest.CaptureFixture[str]) -> None:
    plan_command.execute(job, as_json=False)
    text = capsys.readouterr().out
    assert text.startswith("8 ranks, simulated on this host")
    assert "all    1.5 KiB of 1 file  2.0 KiB" in text
    assert "rank 3  RANK_ID=3 DEVICE_ID=3" in text
    assert "2 operators; collectives: 2 AllGather, 1 AllReduce" in text
    assert "Erfinv (head) runs on gathered inputs" in text
    assert "not read    1 tensor: moments.matmul_weight" in text


def test_a_plan_writes_nothing(job: Job, tmp_path: Path) -> None:
    plan_command.execute(job, as_json=False)
    assert not (tmp_path / "out").exists()


def test_a_checkpoint_of_another_network_is_found_by_the_plan(
    job: Job, child: Callable[[str], None]
) -> None:
    other = REPORT | {"parameters": {"dense.weight": REPORT["parameters"]["matmul_weight"]}}
    child(f"json.dump({other!r}, sys.stdout)")
    with pytest.raises(JobError, match="^checkpoint: .*dense.weight"):
        plan_command.execute(job, as_json=False)


def test_a_parameter_that_may_be_missing_is_told_by_the_plan(
    job: Job, child: Callable[[str], None], capsys: pytest.CaptureFixture[str]
) -> None:
    weight = REPORT["parameters"]["matmul_weight"]
    other = REPORT | {"parameters": REPORT["parameters"] | {"head": weight}}
    child(f"json.dump({other!r}, sys.stdout)")
    allowing = job.model_copy(update={"allow_missing": ("head",), "verify": ("replicas",)})
    plan_command.execute(allowing, as_json=True)
    plan = json.loads(capsys.readouterr().out)
    assert plan["initial_parameters"] == ["head"]
    assert plan["checked"]["replicas"] > 0
    plan_command.execute(allowing, as_json=False)
    text = capsys.readouterr().out
    assert "initial     1 parameter that no file has: head" in text
    assert "checked     replicas of " in text


def test_changes_of_an_environment_name_what_was_dropped() -> None:
    parent = {"PATH": "/bin", "MS_ROLE": "MS_SCHED", "GLOG_v": "1"}
    child = {"PATH": "/bin", "GLOG_v": "3", "RANK_ID": "0"}
    assert plan_command.changes(parent, child) == {"MS_ROLE": None, "GLOG_v": "3", "RANK_ID": "0"}
