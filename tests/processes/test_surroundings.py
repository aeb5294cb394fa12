"""A run whose disk, log or port is abused: it ends as it should, and keeps what it has."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from launcher.outcome import Outcome
from launcher.run_folder import RunFolder
from launcher.tee import Tee

Run = Callable[..., Outcome]
Events = Callable[[], list[dict[str, Any]]]
Mount = Callable[..., Path]


@pytest.fixture
def mount(tmp_path: Path) -> Iterator[Mount]:
    """Return a function that mounts a file system in memory; only root may do that."""
    mounted = []

    def mount(options: str) -> Path:
        folder = tmp_path / "mounted"
        folder.mkdir()
        command = ["mount", "-t", "tmpfs", "-o", options, "tmpfs", str(folder)]
        try:
            subprocess.run(command, check=True, capture_output=True, text=True)
        except (OSError, subprocess.CalledProcessError) as error:
            pytest.skip(f"mounting a tmpfs is not permitted here: {error}")
        mounted.append(folder)
        return folder

    yield mount
    for folder in mounted:
        subprocess.run(["umount", "--lazy", str(folder)], check=True)


def test_a_disk_that_gets_full_is_the_cause_and_verified_batches_are_kept(
    run: Run, mount: Mount
) -> None:
    # A batch has 2 MiB, so two fit on the disk and three do not.
    disk = RunFolder(mount("size=5m") / "out")
    outcome = run("PredictsMuch", folder=disk, max_restarts=3)
    assert outcome.cause is not None
    assert (outcome.exit_code, outcome.cause.kind, outcome.restarts) == (1, "OSError", ())
    assert "No space left on device" in outcome.cause.message
    assert outcome.batches == 2
    (partial,) = outcome.partial
    kept = np.load(partial, mmap_mode="r")
    assert kept[:, 0].tolist() == [0, 0, 1, 1]


def test_an_output_folder_that_cannot_be_written_is_refused_before_a_rank_starts(
    mount: Mount,
) -> None:
    folder = mount("size=1m,ro")
    net = folder.parent / "net.py"
    net.touch()
    command = [sys.executable, "-m", "launcher", "--ranks=2", f"--output={folder}"]
    command += [f"--network={net}:make", f"--predict-data={net}:make"]
    ended = subprocess.run(command, capture_output=True, text=True)
    said = f"launcher: output: {folder} is not writable; name another folder\n"
    assert (ended.returncode, ended.stdout, ended.stderr) == (2, "", said)


def test_a_rank_that_floods_its_output_disturbs_nobody(run: Run, folder: RunFolder) -> None:
    shown: list[str] = []
    with Tee({1: folder.log(1)}, shown.append) as tee:
        assert run("Floods", watch=tee.watch).exit_code == 0
    assert folder.log(1).stat().st_size > 2 << 30
    assert sum(map(len, shown)) < 32 << 20  # not all of it, by far
    folder.log(1).unlink()


def test_strangers_on_the_port_of_the_collector_disturb_nobody(run: Run) -> None:
    outcome = run("MeetsStrangers")
    assert (outcome.cause, outcome.batches) == (None, 3)


def test_a_crash_ends_the_run_at_once(run: Run, events: Events) -> None:
    run("Segfaults", grace_s=30.0)
    died = next(e for e in events() if e["event"] == "exited" and e["signal"] == "SIGSEGV")
    (end,) = (e for e in events() if e["event"] == "end")
    assert end["s"] - died["s"] < 10  # 0.1 s on a machine that does nothing else
    assert not [e for e in events() if e.get("signal") == "SIGKILL"]
