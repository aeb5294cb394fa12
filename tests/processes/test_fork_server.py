"""The process of which ranks are forks: it starts before them, and before it has a log."""

from __future__ import annotations

import signal
import subprocess
from collections.abc import Callable
from pathlib import Path
from types import MappingProxyType

import psutil
import pytest

import launcher
from launcher.engines import local
from launcher.errors import JobError
from launcher.outcome import Outcome
from launcher.run_folder import RunFolder

Run = Callable[..., Outcome]
Living = Callable[[], list[psutil.Process]]
Until = Callable[[Callable[[], object]], None]
Guide = Callable[..., subprocess.CompletedProcess[str]]


@pytest.fixture
def chatty(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> dict[str, str]:
    """Return the environment in which every fork server imports a module that prints."""
    (tmp_path / "chatty.py").write_text("print('imported', flush=True)\n")

    class All(dict[str, tuple[str, ...]]):
        def get(self, *key: object) -> tuple[str, ...]:  # type: ignore[override]
            return ("chatty",)

    monkeypatch.setattr(local, "PRELOAD", MappingProxyType(All()))
    return {"PYTHONPATH": str(tmp_path)}


def test_what_it_says_before_it_has_a_log_comes_to_stand_there(
    run: Run, folder: RunFolder, chatty: dict[str, str]
) -> None:
    assert run("Healthy", environment=chatty).exit_code == 0
    assert folder.engine_log.read_text() == "imported\n"


def test_what_it_says_is_kept_when_it_is_ended_before_it_comes_to_its_log(
    tmp_path: Path, chatty: dict[str, str], until: Until
) -> None:
    (tmp_path / "chatty.py").write_text(
        "import pathlib, threading\n"
        "print('no licence yet', flush=True)\n"
        "pathlib.Path(__file__).with_name('waiting').touch()\n"
        "threading.Event().wait()\n"
    )
    spec = local.WorkerSpec(
        rank=0,
        rank_size=1,
        device_id=0,
        server_id="localhost",
        device="simulated",
        network="net:make",
        predict_data="net:data",
        environment=chatty,
    )
    engine = local.LocalEngine([spec], local.ForkServer(spec), tmp_path / "engine.log")
    until((tmp_path / "waiting").exists)
    engine.close()
    assert (tmp_path / "engine.log").read_text() == "no licence yet\n"


@pytest.mark.parametrize("nowhere", ["os.open(os.devnull, os.O_WRONLY)", "os.pipe()[1]"])
def test_it_may_import_a_module_that_sends_its_output_elsewhere(
    run: Run, folder: RunFolder, chatty: dict[str, str], nowhere: str
) -> None:
    module = Path(chatty["PYTHONPATH"], "chatty.py")
    module.write_text(f"import os\nos.dup2({nowhere}, 1)\n")
    assert run("Healthy", environment=chatty).exit_code == 0
    assert folder.engine_log.read_text() == ""


def test_the_end_of_a_rank_is_heard_of_where_the_program_has_blocked_signals(run: Run) -> None:
    before = signal.pthread_sigmask(signal.SIG_BLOCK, (signal.SIGCHLD,))
    try:
        assert run("Healthy", total_s=10).exit_code == 0
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def test_its_first_words_may_find_the_disk_full(
    run: Run, folder: RunFolder, chatty: dict[str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(RunFolder, "engine_log", Path("/dev/full"))
    monkeypatch.setattr(local.ForkServer, "last_words", lambda *_: "")  # it reads without end
    assert run("Healthy", environment=chatty).exit_code == 0


def test_it_is_heard_by_a_program_that_has_closed_its_standard_streams(guide: Guide) -> None:
    program = (
        "import launcher, sys;"
        "job = launcher.load_job('job.yaml', ranks=2, device='cpu', output='out');"
        "sys.exit(launcher.run(job).exit_code)"
    )
    assert guide(f'exec python -c "{program}" <&- >&- 2>&-').returncode == 0


def test_it_ends_with_a_job_that_is_refused_and_nothing_is_written(
    tmp_path: Path, mark: str, living: Living, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TEST_MARK", mark)
    monkeypatch.chdir(tmp_path)
    (tmp_path / "net.py").touch()
    started: list[str] = []

    class Watched(local.ForkServer):
        def __init__(self, spec: local.WorkerSpec) -> None:
            super().__init__(spec)
            started.extend(str(process.pid) for process in living())

    monkeypatch.setattr(local, "ForkServer", Watched)
    values = {"network": "net:make", "predict_data": "net:data", "checkpoint": "none/"}
    with pytest.raises(JobError, match="none"):
        launcher.run(launcher.load_job(**values, ranks=2, device="cpu", output="out"))
    assert len(started) == 1
    assert living() == []
    assert not (tmp_path / "out").exists()
