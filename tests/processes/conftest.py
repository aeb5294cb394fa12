"""Run real ranks, and check after every test that none of their processes is left."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
import time
import uuid
from collections.abc import Callable, Iterator, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

import psutil
import pytest

from launcher.outcome import Limits, Outcome
from launcher.run_folder import RunFolder
from launcher.runner import Watch, run_ranks
from workers.spec import WorkerSpec

HERE = Path(__file__).parent
PATIENCE_S = 60.0  # only a test that fails waits so long

Run = Callable[..., Outcome]
Launch = Callable[..., subprocess.Popen[str]]


@pytest.fixture
def mark() -> str:
    """Return what is in the environment of every process of this test, and of no other."""
    return uuid.uuid4().hex


@pytest.fixture
def living(mark: str) -> Iterator[Callable[[], list[psutil.Process]]]:
    """Return a function that finds the processes of this test; in the end they are killed."""

    def living() -> list[psutil.Process]:
        return [process for process in psutil.process_iter() if _has_mark(process, mark)]

    yield living
    for process in living():
        process.kill()


def _has_mark(process: psutil.Process, mark: str) -> bool:
    try:
        return bool(process.environ().get("TEST_MARK") == mark)
    except psutil.Error:  # it has just ended, or is a zombie
        return False


@pytest.fixture
def folder(tmp_path: Path) -> RunFolder:
    return RunFolder(tmp_path / "out")


@pytest.fixture
def events(folder: RunFolder) -> Callable[[], list[dict[str, Any]]]:
    """Return a function that reads what happened when."""
    return lambda: [json.loads(line) for line in folder.events.read_text().splitlines()]


class Clock:
    """The runner's clock; a test may put it forward, so that nobody waits for a deadline."""

    def __init__(self) -> None:
        self.ahead_s = 0.0

    def monotonic(self) -> float:
        return time.monotonic() + self.ahead_s


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    clock = Clock()
    monkeypatch.setattr("launcher.runner.time", clock)
    return clock


def own_memory() -> set[str]:
    """Return the anonymous shared memory that this process holds open."""
    links = set()
    for link in Path("/proc/self/fd").iterdir():
        with suppress(FileNotFoundError):  # that of the listing itself
            links.add(os.readlink(link))
    return {link for link in links if "memfd:" in link}


@pytest.fixture
def run(folder: RunFolder, mark: str, living: Callable[[], list[psutil.Process]]) -> Run:
    """Return a function that runs ranks of a class in fake_ranks.py to their end."""

    def run(
        behaviour: str,
        ranks: int = 3,
        watch: Watch = lambda message: None,
        grace_s: float = 5.0,
        phase_s: float = PATIENCE_S,
        total_s: float = PATIENCE_S,
        max_restarts: int = 0,
        folder: RunFolder = folder,
        environment: dict[str, str] | None = None,
        **fields: Any,
    ) -> Outcome:
        values: dict[str, Any] = {
            "rank_size": ranks,
            "server_id": "localhost",
            "device": f"{HERE}/fake_ranks.py:{behaviour}",
            "network": "net:make",
            "predict_data": "net:data",
        }
        specs = [
            WorkerSpec(
                rank=rank,
                device_id=rank + 4,
                environment={"PATH": os.environ["PATH"], "RANK_ID": str(rank), "TEST_MARK": mark}
                | (environment or {}),
                **(values | fields),
            )
            for rank in range(ranks)
        ]
        limits = Limits(
            total_s=total_s, phase_s=phase_s, grace_s=grace_s, max_restarts=max_restarts
        )
        memory = own_memory()
        folder.begin()
        outcome = run_ranks(specs, folder, limits, watch)
        assert living() == []  # at return, not some time later
        assert own_memory() == memory  # that of the ranks ended with them
        return outcome

    return run


@pytest.fixture
def launch(
    folder: RunFolder, mark: str, living: Callable[[], list[psutil.Process]]
) -> Launch:
    """Return a function that starts a launcher process; its messages come on its stdout."""

    def launch(
        behaviour: str = "Healthy", ranks: int = 2, grace_s: float = 5.0, **fields: Any
    ) -> subprocess.Popen[str]:
        asked = {
            "device": f"{HERE}/fake_ranks.py:{behaviour}",
            "ranks": ranks,
            "folder": str(folder.root),
            "limits": {"total_s": PATIENCE_S, "phase_s": PATIENCE_S, "grace_s": grace_s},
            **fields,
        }
        return subprocess.Popen(
            [sys.executable, HERE / "launch.py", json.dumps(asked)],
            env={
                "PATH": os.environ["PATH"],
                "PYTHONPATH": str(HERE.parents[1]),
                "TEST_MARK": mark,
            },
            stdout=subprocess.PIPE,
            text=True,
            start_new_session=True,
        )

    return launch


@pytest.fixture
def until() -> Callable[[Callable[[], object]], None]:
    """Return a function that waits for a fact that is certain to come true."""

    def until(fact: Callable[[], object]) -> None:
        deadline_s = time.monotonic() + PATIENCE_S
        while not fact():
            assert time.monotonic() < deadline_s, "it never came true"
            time.sleep(0.01)

    return until


@pytest.fixture
def documented() -> Callable[[str], str]:
    """Return a function that finds the command of docs/clusters.md that begins with some words."""
    guide = (HERE.parents[1] / "docs" / "clusters.md").read_text().splitlines()
    commands = [line.strip() for line in guide if line.startswith("    ")]

    def find(beginning: str) -> str:
        (command,) = [line for line in commands if line.startswith(beginning)]
        return command

    return find


@pytest.fixture
def guide(tmp_path: Path, mark: str) -> Callable[..., "subprocess.CompletedProcess[str]"]:
    """Return a function that types a command where job.yaml is that of examples/digits."""
    shutil.copytree(HERE.parents[1] / "examples" / "digits", tmp_path / "job")
    environment = {
        "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}",
        "PYTHONPATH": str(HERE.parents[1]),
        "HOME": str(tmp_path),
        "TEST_MARK": mark,
        # What a user who is not root, on a host of four cores, need not say:
        "PRTE_ALLOW_RUN_AS_ROOT": "1",
        "PRTE_ALLOW_RUN_AS_ROOT_CONFIRM": "1",
        "OMPI_ALLOW_RUN_AS_ROOT": "1",
        "OMPI_ALLOW_RUN_AS_ROOT_CONFIRM": "1",
        "PRTE_MCA_rmaps_default_mapping_policy": ":oversubscribe",
    }

    def run(command: str, **more: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            command,
            shell=True,
            env=environment | more,
            cwd=tmp_path / "job",
            capture_output=True,
            text=True,
        )

    return run


@pytest.fixture
def remote_guide(tmp_path: Path, mark: str) -> Callable[..., "subprocess.CompletedProcess[str]"]:
    """Return a function that runs the block of docs/remote.md in which some words stand.

    It runs beside a link to examples/, with a cache of its own, and without what is cloned.
    """
    root = HERE.parents[1]
    guide = (root / "docs" / "remote.md").read_text()
    blocks = re.findall(r"^```sh\n(.*?)^```", guide, re.MULTILINE | re.DOTALL)
    (tmp_path / "examples").symlink_to(root / "examples")
    environment = os.environ | {
        "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}",
        "PYTHONPATH": str(root),
        "LAUNCHER_CACHE": str(tmp_path / "cache"),
        "TEST_MARK": mark,
    }

    def run(
        words: str, places: Mapping[str, str] = {}, **more: str
    ) -> subprocess.CompletedProcess[str]:
        """Run it with other places, servers say, in the stead of those in the text."""
        (lines,) = [block for block in blocks if words in block]
        for named, other in places.items():
            lines = lines.replace(named, other)
        return subprocess.run(
            ["bash", "-ec", re.sub("^git .*\n", "", lines, flags=re.MULTILINE)],
            capture_output=True,
            text=True,
            cwd=tmp_path,
            timeout=110,
            env=environment | more,
        )

    return run
