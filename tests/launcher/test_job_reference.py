"""What is written about jobs is true: docs/job.md, and the file to begin with."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import yaml

from launcher.cli import main
from launcher.job import Job
from launcher.job_file import load_job
from launcher.job_reference import markdown, template

DOCS = Path(__file__).parents[2] / "docs"


def test_the_page_of_the_keys_is_up_to_date() -> None:
    assert (DOCS / "job.md").read_text() == markdown(), "run: make job-reference"


def test_every_key_has_a_line_that_says_something() -> None:
    lines = [line.split(" | ") for line in markdown().splitlines() if line.startswith("| `")]
    assert [line[0].strip("| `") for line in lines] == list(Job.model_fields)
    assert all(len(line[-1]) > 10 for line in lines)


@pytest.mark.parametrize("task", ["predict", "eval"])
def test_the_first_job_file_can_be_loaded_and_names_every_key(tmp_path: Path, task: str) -> None:
    path = tmp_path / "job.yaml"
    assert main(["init", str(path), "--task", task]) == 0
    job = load_job(path, {})
    assert (job.task, job.network) == (task, f"{tmp_path}/net.py:make_network")
    assert set(Job.model_fields) == {
        line.removeprefix("# ").partition(":")[0]
        for line in path.read_text().splitlines()
        if line.removeprefix("# ").partition(":")[0] in Job.model_fields
    }


@pytest.mark.parametrize("task", ["predict", "eval"])
def test_the_keys_in_comments_hold_the_defaults(task: str) -> None:
    for line in template(task).splitlines():
        name, colon, _ = line.removeprefix("# ").partition(":")
        if line.startswith("# ") and colon and name in Job.model_fields:
            given = yaml.safe_load(line.removeprefix("# "))[name]
            default = json.loads(json.dumps(Job.model_fields[name].default))
            assert given == default, name


def test_a_file_that_is_there_is_left_alone(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "job.yaml"
    path.write_text("mine")
    assert main(["init", str(path)]) == 2
    assert path.read_text() == "mine"
    assert "it exists; name another file" in capsys.readouterr().err
