"""The command line: which job goes to which command, and what an error looks like."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace

import pytest

from launcher import cli
from launcher.errors import HostError
from launcher.job import Job

NETWORK = ["--network", "net:make", "--predict-data", "net:data"]


@pytest.fixture
def executed(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[tuple[str, Job, bool]]]:
    """Record what commands are asked to do, instead of doing it."""
    calls: list[tuple[str, Job, bool]] = []

    def load(module: str) -> SimpleNamespace:
        def execute(job: Job, as_json: bool = False) -> int:
            calls.append((module, job, as_json))
            return 0

        return SimpleNamespace(execute=execute)

    monkeypatch.setattr(cli, "importlib", SimpleNamespace(import_module=load))
    yield calls


@pytest.fixture
def fails(monkeypatch: pytest.MonkeyPatch) -> type:
    """Let every command end with the error that ``Fails.error`` holds."""

    class Fails:
        error: BaseException = HostError("no device", "use --device cpu")

        @classmethod
        def execute(cls, job: Job, as_json: bool = False) -> int:
            raise cls.error

    monkeypatch.setattr(cli, "importlib", SimpleNamespace(import_module=lambda module: Fails))
    return Fails


def test_run_is_the_command_when_none_is_named(executed: list[tuple[str, Job, bool]]) -> None:
    assert cli.main(["--ranks", "2", *NETWORK]) == 0
    assert cli.main(["run", "--ranks", "2", *NETWORK]) == 0
    assert executed[0] == executed[1]
    assert executed[0][0] == "launcher.run_command"
    assert executed[0][1].ranks == 2


def test_the_first_word_may_be_a_command(executed: list[tuple[str, Job, bool]]) -> None:
    cli.main(["layout", "--ranks", "2", "--json", *NETWORK])
    module, _, as_json = executed[0]
    assert (module, as_json) == ("launcher.layout_command", True)


def test_a_first_word_that_is_no_command_is_a_job_file(
    executed: list[tuple[str, Job, bool]], tmp_path: Path
) -> None:
    path = tmp_path / "job.yaml"
    path.write_text("network: net:make\npredict_data: net:data\nranks: 8\n")
    cli.main([str(path), "--ranks", "3"])
    assert executed[0][1].ranks == 3


def test_without_a_job_the_example_is_run_and_said_to_be(
    executed: list[tuple[str, Job, bool]],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    example = tmp_path / "job.yaml"
    example.write_text("network: digits:make\npredict_data: digits:data\n")
    monkeypatch.setattr(cli, "DEFAULT_JOB", example)
    monkeypatch.chdir(tmp_path)

    cli.main(["--ranks", "8"])

    assert executed[0][1].network == "digits:make"
    assert capsys.readouterr().out == "no job given: this is job.yaml\n"


def test_an_installation_without_examples_asks_for_a_network(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(cli, "DEFAULT_JOB", tmp_path / "none.yaml")
    assert cli.main(["--ranks", "8"]) == 2
    assert "command line: --network: missing" in capsys.readouterr().err


def test_an_error_is_one_line_and_an_exit_code(
    fails: type, capsys: pytest.CaptureFixture[str]
) -> None:
    assert cli.main(NETWORK) == 2
    assert capsys.readouterr().err == "launcher: no device; use --device cpu\n"


def test_an_error_is_json_too_where_json_is_asked_for(
    fails: type, capsys: pytest.CaptureFixture[str]
) -> None:
    assert cli.main([*NETWORK, "--json"]) == 2
    assert json.loads(capsys.readouterr().out) == {
        "status": "refused",
        "exit_code": 2,
        "message": "no device; use --device cpu",
    }


def test_a_reader_that_leaves_changes_nothing(tmp_path: Path) -> None:
    code = """
import sys
from types import SimpleNamespace
from launcher import cli
cli.importlib = SimpleNamespace(
    import_module=lambda name: SimpleNamespace(execute=lambda *_: print("x" * 100_000) or 0)
)
sys.exit(cli.main(sys.argv[1:]))
"""
    child = subprocess.Popen(
        [sys.executable, "-c", code, *NETWORK],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    assert child.stdout is not None
    child.stdout.close()
    _, said = child.communicate()
    assert (child.returncode, said) == (0, "")


def test_ctrl_c_before_a_rank_starts_is_no_traceback(
    fails: type, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(fails, "error", KeyboardInterrupt())
    assert cli.main(NETWORK) == 130
    assert capsys.readouterr().err == "launcher: interrupted\n"


def test_an_interrupt_while_a_command_is_imported_is_told_in_a_line(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def interrupted(name: str) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("importlib.import_module", interrupted)
    assert cli.main(["inspect", "net.ckpt"]) == 130
    assert capsys.readouterr().err == "launcher: interrupted\n"
