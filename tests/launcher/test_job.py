"""Jobs: a file, flags on top of it, and what is said about what is wrong."""

from __future__ import annotations

import pickle
from pathlib import Path
from typing import Any

import pytest

from launcher.errors import JobError
from launcher.job import Job, load_job

GOOD = "network: net.py:make\npredict_data: pkg.data:make\nranks: 8\n"


@pytest.fixture
def job_file(tmp_path: Path) -> Path:
    path = tmp_path / "jobs" / "job.yaml"
    path.parent.mkdir()
    path.write_text(GOOD)
    return path


def refuse(path: Path | None, **flags: Any) -> str:
    with pytest.raises(JobError) as caught:
        load_job(path, flags)
    assert caught.value.exit_code == 2
    return str(caught.value)


def test_flags_win_over_the_file(job_file: Path) -> None:
    job = load_job(job_file, {"ranks": 2, "device": "cpu"})
    assert (job.ranks, job.device, job.predict_data) == (2, "cpu", "pkg.data:make")


def test_paths_in_the_file_are_relative_to_the_file(job_file: Path) -> None:
    job_file.write_text(
        GOOD + "checkpoint: slices/rank_{rank}\nstrategy: s.ckpt\noutput: ../out\n"
        "rank_table: hccl.json\nlabels: y.npz:labels\n"
    )
    job, folder = load_job(job_file, {}), job_file.parent
    assert job.network == f"{folder}/net.py:make"
    assert job.checkpoint == f"{folder}/slices/rank_{{rank}}"
    assert (job.strategy, job.rank_table) == (folder / "s.ckpt", folder / "hccl.json")
    assert job.output == folder / "../out"
    assert job.labels == f"{folder}/y.npz:labels"


def test_paths_in_flags_are_relative_to_the_working_directory(
    job_file: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    job = load_job(job_file, {"output": "out", "network": "other.py:make"})
    assert (job.output, job.network) == (tmp_path / "out", f"{tmp_path}/other.py:make")


def test_modules_are_looked_for_beside_the_file_and_in_the_working_directory(
    job_file: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    assert load_job(job_file, {}).search_path == (job_file.parent, tmp_path)

    job_file.write_text(GOOD + "search_path: [src]\n")
    assert load_job(job_file, {}).search_path[0] == job_file.parent / "src"


def test_a_job_needs_no_file() -> None:
    job = load_job(None, {"network": "net:make", "predict_data": "net:data"})
    assert job == Job(network="net:make", predict_data="net:data")
    assert (job.device, job.engine, job.ranks) == ("auto", "auto", None)


def test_an_unknown_key_gets_a_suggestion(job_file: Path) -> None:
    job_file.write_text(GOOD + "checkpiont: x\n")
    said = refuse(job_file)
    assert said == f"{job_file}: checkpiont: unknown key; did you mean checkpoint?"


def test_a_key_written_as_a_flag_gets_a_suggestion(job_file: Path) -> None:
    job_file.write_text(GOOD + "rank-table: x\n")
    assert "did you mean rank_table?" in refuse(job_file)


def test_every_problem_of_a_file_is_told_at_once(job_file: Path) -> None:
    job_file.write_text("network: net\nranks: true\ndevice: tpu\ntimeout: 0\n")
    lines = refuse(job_file).splitlines()
    keys = {line.removeprefix(f"{job_file}: ").partition(":")[0] for line in lines}
    assert keys == {"network", "predict_data", "ranks", "device", "timeout"}


def test_a_bad_flag_is_named_as_a_flag(job_file: Path) -> None:
    assert refuse(job_file, phase_timeout=-1.0).startswith("command line: --phase-timeout: -1.0")


@pytest.mark.parametrize("name", ["net", "net:", ":make", "net:make-it", "net.py"])
def test_an_entry_point_names_a_module_and_a_callable(name: str) -> None:
    assert "write pkg.module:name or path/file.py:name" in refuse(
        None, network=name, predict_data="net:data"
    )


def test_engines_that_do_not_exist_yet_are_refused(job_file: Path) -> None:
    assert "try 'auto' or 'local'" in refuse(job_file, engine="mpi")


def test_a_file_that_is_not_there_is_an_error(tmp_path: Path) -> None:
    assert "No such file" in refuse(tmp_path / "none.yaml")


def test_broken_yaml_is_refused_with_its_line(job_file: Path) -> None:
    job_file.write_text("network: [net\npredict_data: x\n")
    assert "line 2" in refuse(job_file)


@pytest.mark.parametrize("text", ["", "- network", "just words", "1: 2"])
def test_yaml_that_is_no_mapping_of_names_is_refused(job_file: Path, text: str) -> None:
    job_file.write_text(text)
    assert "not a list of 'key: value'" in refuse(job_file)


def test_yaml_never_makes_objects(job_file: Path) -> None:
    job_file.write_text("network: !!python/object/apply:os.getcwd []\n")
    assert "python/object/apply" in refuse(job_file)


def test_an_error_survives_the_way_to_another_process(job_file: Path) -> None:
    job_file.write_text("ranks: 0\n")
    with pytest.raises(JobError) as caught:
        load_job(job_file, {})
    copy = pickle.loads(pickle.dumps(caught.value))
    assert (str(copy), copy.problems) == (str(caught.value), caught.value.problems)
