"""A launcher process that is interrupted or killed: its exit code, and that nobody is left."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import psutil
import pytest

from launcher.run_folder import RunFolder

Launch = Callable[..., subprocess.Popen[str]]
Living = Callable[[], list[psutil.Process]]
Until = Callable[[Callable[[], object]], None]
ROOT = Path(__file__).parents[2]


@pytest.mark.parametrize(
    ("number", "exit_code"),
    [(signal.SIGINT, 130), (signal.SIGTERM, 143), (signal.SIGHUP, 129)],
    ids=["SIGINT", "SIGTERM", "SIGHUP"],
)
def test_an_interrupted_launcher_ends_its_ranks_and_says_so(
    launch: Launch,
    living: Living,
    until: Until,
    folder: RunFolder,
    number: signal.Signals,
    exit_code: int,
) -> None:
    launcher = launch("AllWait")
    until((folder.logs / "waiting").exists)
    launcher.send_signal(number)
    output, _ = launcher.communicate()
    assert launcher.returncode == exit_code
    assert f"cause Interrupted: the launcher was told to end by {number.name}" in output
    assert living() == []


def test_an_interrupt_before_there_is_a_command_line_is_no_traceback(tmp_path: Path) -> None:
    (tmp_path / "argparse.py").write_text("raise KeyboardInterrupt")  # comes while it is imported
    done = subprocess.run(
        [sys.executable, "-m", "launcher", "--version"],
        env={"PATH": os.environ["PATH"], "PYTHONPATH": str(ROOT)},
        cwd=tmp_path,
        capture_output=True,
        text=True,
    )
    assert (done.returncode, done.stderr) == (130, "launcher: interrupted\n")


def test_a_second_interrupt_does_not_wait_for_the_grace_period(
    launch: Launch, living: Living, until: Until, folder: RunFolder
) -> None:
    launcher = launch("AllIgnoreSigterm", grace_s=3600)
    until((folder.logs / "waiting").exists)
    launcher.send_signal(signal.SIGINT)
    until((folder.logs / "told").exists)
    launcher.send_signal(signal.SIGINT)
    launcher.communicate()
    assert launcher.returncode == 130
    assert living() == []


@pytest.fixture
def slow_import(tmp_path: Path) -> str:
    """Return a folder to put on PYTHONPATH: importing mindspore takes for ever there."""
    (tmp_path / "mindspore.py").write_text(
        "import pathlib, threading\n"
        "pathlib.Path(__file__).with_name('importing').touch()\n"
        "threading.Event().wait()\n"
    )
    return str(tmp_path)


def test_an_interrupt_while_ranks_are_being_started_does_not_wait_for_them(
    launch: Launch, living: Living, until: Until, tmp_path: Path, slow_import: str
) -> None:
    environment = {"PYTHONPATH": slow_import}
    launcher = launch(device="simulated", environment=environment, grace_s=3600)
    until((tmp_path / "importing").exists)
    launcher.send_signal(signal.SIGINT)
    launcher.communicate()
    assert launcher.returncode == 130
    assert living() == []


def test_a_deadline_before_any_rank_runs_does_not_wait_for_them_either(
    launch: Launch, living: Living, slow_import: str
) -> None:
    limits = {"total_s": 0.1, "phase_s": 3600, "grace_s": 3600}
    launcher = launch(device="simulated", environment={"PYTHONPATH": slow_import}, limits=limits)
    output, _ = launcher.communicate()
    assert launcher.returncode == 124
    assert "the run took longer than 0.1 s" in output
    assert living() == []


def test_nobody_outlives_a_launcher_that_is_killed(
    launch: Launch, living: Living, until: Until, folder: RunFolder
) -> None:
    launcher = launch("AllWait")
    until((folder.logs / "waiting").exists)
    assert len(living()) > 3  # the launcher, the fork server, ranks and what they started
    launcher.kill()
    launcher.communicate()
    until(lambda: living() == [])


def test_nobody_outlives_a_launcher_that_is_killed_while_mindspore_is_imported(
    launch: Launch, living: Living, until: Until, tmp_path: Path, slow_import: str
) -> None:
    launcher = launch(device="simulated", environment={"PYTHONPATH": slow_import})
    until((tmp_path / "importing").exists)
    launcher.kill()
    launcher.communicate()
    until(lambda: living() == [])


def test_a_result_that_cannot_be_written_is_an_error_before_any_rank_starts(
    launch: Launch, folder: RunFolder
) -> None:
    folder.root.write_text("a file is in the way")
    launcher = launch("Healthy")
    output, _ = launcher.communicate()
    assert launcher.returncode == 1
    assert "rank 0 started" not in output


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGKILL], ids=["SIGTERM", "SIGKILL"])
def test_the_child_that_works_out_layouts_does_not_outlive_the_launcher(
    living: Living, until: Until, mark: str, tmp_path: Path, number: signal.Signals
) -> None:
    (tmp_path / "net.py").write_text(
        "import pathlib, threading\n"
        "def make():\n"
        "    pathlib.Path(__file__).with_name('waiting').touch()\n"
        "    threading.Event().wait()\n"
    )
    layout = ["layout", "--ranks=2", "--network=net.py:make", "--predict-data=net.py:make"]
    launcher = subprocess.Popen(
        [sys.executable, "-m", "launcher", *layout],
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": str(ROOT), "TEST_MARK": mark},
    )
    until((tmp_path / "waiting").exists)
    launcher.send_signal(number)
    assert launcher.wait() == -number
    until(lambda: living() == [])
