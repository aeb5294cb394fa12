"""Tab completion: a real bash is asked what it would offer."""

from __future__ import annotations

import shutil
import subprocess

import pytest

from launcher.cli import main

pytestmark = pytest.mark.skipif(shutil.which("bash") is None, reason="there is no bash")
_ASK = """
COMP_WORDS=("$@"); COMP_CWORD=$(($# - 1)); _launcher; echo "${COMPREPLY[*]}"
"""


@pytest.mark.parametrize(
    ("typed", "offered"),
    [
        (["pl"], "plan"),
        (["--rank"], "--rank-table --ranks"),
        (["plan", "--st"], "--strategy --strategy-ckpt-load-file"),
        (["job.yaml", "--device", ""], "auto ascend gpu cpu"),
        (["rank-table", "m"], "make merge"),
        (["rank-table", "check", "--js"], "--json"),
        (["job.yaml", "--ranks", "8", "out"], ""),  # bash looks for files itself
    ],
)
def test_bash_offers_what_the_parsers_know(
    typed: list[str], offered: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["completion", "bash"]) == 0
    script = capsys.readouterr().out + _ASK
    answer = subprocess.run(
        ["bash", "-c", script, "bash", "launcher", *typed], capture_output=True, text=True
    )
    assert (answer.stdout.strip(), answer.stderr) == (offered, "")
