"""The guide, from its first command to its last, and the files for CI that it offers."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import yaml

ROOT = Path(__file__).parents[2]
GUIDE = (ROOT / "docs" / "guide.md").read_text()
BLOCK = re.compile(r"^```(\w+)(?: exit=(\d+))?\n(.*?)^```", re.M | re.S)
FILE = re.compile(r"# (net\.py|job\.yaml)\n")


@pytest.mark.timeout(400)
def test_each_command_of_the_guide_does_what_it_says(tmp_path):
    if shutil.which("mpirun", path=os.pathsep.join(map(str, _path()))) is None:
        pytest.skip("there is no mpirun; pip install '.[mpi]'")
    (tmp_path / "examples").symlink_to(ROOT / "examples")
    environment = os.environ | {
        "PATH": os.pathsep.join(map(str, _path())),
        "PYTHONPATH": str(ROOT),
    }
    for language, exit_code, text in BLOCK.findall(GUIDE):
        if language == "sh":
            done = subprocess.run(
                ["bash", "-ec", text],
                capture_output=True,
                text=True,
                cwd=tmp_path,
                env=environment,
            )
            assert done.returncode == int(exit_code or 0), text + done.stdout + done.stderr
        elif file := FILE.match(text):
            (tmp_path / file[1]).write_text(text)
    expected = np.load(ROOT / "examples" / "tutorial" / "expected.npy")
    found = np.load(tmp_path / "out" / "predictions.npy")
    np.testing.assert_allclose(found, expected, rtol=1e-4, atol=1e-5)
    summary = json.loads((tmp_path / "ci-out" / "summary.json").read_text())
    assert summary["single"]["relative"] < 1e-5


def _path() -> list[object]:
    return [Path(sys.executable).parent, *os.environ["PATH"].split(os.pathsep)]


def test_the_files_for_ci_run_the_command_of_the_guide():
    *_, last = [text.strip() for language, _, text in BLOCK.findall(GUIDE) if language == "sh"]
    workflow = yaml.safe_load((ROOT / "examples" / "ci" / "github.yml").read_text())
    steps = workflow["jobs"]["simulated-ranks"]["steps"]
    assert last in [step.get("run") for step in steps]
    assert f"sh '{last}'" in (ROOT / "examples" / "ci" / "Jenkinsfile").read_text()
