"""Output that has no reader, or not the right one, is no reason for a command to fail."""

from __future__ import annotations

import io
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from launcher.console import make_console
from launcher.streams import LastingStream

Command = Callable[[str], "subprocess.CompletedProcess[str]"]

# A command line of which every command prints a table and some bare text.
CHILD = """
import os, sys
from types import SimpleNamespace
from launcher import cli
from launcher.console import make_console

def execute(job):
    make_console(sys.stdout).print("x" * 100)
    print("y" * 100_000)
    print("still here", file=sys.stderr)
    descriptor = os.open(os.devnull, os.O_RDONLY)
    return 0 if descriptor > 2 else 9

cli.importlib = SimpleNamespace(import_module=lambda name: SimpleNamespace(execute=execute))
sys.exit(cli.main(["--network=net:make", "--predict-data=net:data"]))
"""


@pytest.fixture
def command() -> Command:
    """Return a function that runs a shell command in which $CHILD is the command line above."""

    def run(line: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            ["bash", "-c", "set -o pipefail; " + line.replace("$CHILD", '"$0" -c "$1"')]
            + [sys.executable, CHILD],
            capture_output=True,
            text=True,
            cwd=Path(__file__).parents[2],
        )

    return run


@pytest.mark.parametrize("line", ["$CHILD | true", "$CHILD | head -c 1", "$CHILD >&-"])
def test_a_command_ends_as_ever_when_nobody_reads_what_it_prints(
    command: Command, line: str
) -> None:
    done = command(line)
    assert (done.returncode, done.stderr) == (0, "still here\n")


def test_a_command_whose_standard_error_is_closed_ends_as_ever(command: Command) -> None:
    assert command("$CHILD 2>&- >/dev/null").returncode == 0


def test_output_that_is_lost_on_a_full_disk_is_told(command: Command) -> None:
    done = command("$CHILD >/dev/full")
    assert done.returncode == 1
    assert done.stderr.endswith("launcher: standard output: No space left on device\n")


@pytest.mark.parametrize(
    ("encoding", "written"), [("utf-8", "na\u00efve \\udcff"), ("ascii", "na\\xefve \\udcff")]
)
def test_characters_that_an_encoding_has_not_got_are_escaped(encoding: str, written: str) -> None:
    raw = io.BytesIO()
    stream = LastingStream(io.TextIOWrapper(raw, encoding, errors="strict"))
    make_console(stream).print("na\u00efve \udcff")
    assert raw.getvalue().decode("utf-8") == written + "\n"
