"""Children: they run our code, wherever the user stands."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from launcher.child import OUR_CODE, ask, python_module, with_our_code
from launcher.errors import ReportError


def test_a_folder_of_the_user_that_is_called_workers_is_not_run(tmp_path: Path) -> None:
    (tmp_path / "workers").mkdir()
    (tmp_path / "workers" / "__init__.py").write_text("raise SystemExit('not ours')")
    child = subprocess.run(
        python_module("workers.errors"),
        cwd=tmp_path,
        env=with_our_code(dict(os.environ)),
        capture_output=True,
        text=True,
    )
    assert (child.returncode, child.stderr) == (0, "")


def test_our_code_comes_before_the_users_search_path() -> None:
    assert with_our_code({"PYTHONPATH": "/src"})["PYTHONPATH"] == f"{OUR_CODE}:/src"
    assert with_our_code({"HOME": "/"}) == {"HOME": "/", "PYTHONPATH": OUR_CODE}


def test_a_child_that_leaves_without_an_answer_has_failed() -> None:
    program = "import sys; print('enough', file=sys.stderr); sys.exit()"
    with pytest.raises(ReportError, match="left before it had an answer\nenough$") as caught:
        ask([sys.executable, "-c", program], {}, dict(os.environ), 60, "late")
    assert caught.value.exit_code == 1
