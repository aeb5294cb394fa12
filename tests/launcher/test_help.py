"""The command line before anything is done: help, flags, what it costs."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterable
from typing import get_args

import pytest

from launcher import __version__
from launcher.cli import COMMANDS, main, make_parser
from launcher.job import Job

SLOW = {"mindspore", "numpy", "pydantic", "yaml", "rich", "zmq", "psutil"}


def imported_by(*arguments: str) -> set[str]:
    """Return the top-level modules that Python imports for a command line."""
    child = subprocess.run(
        [sys.executable, "-X", "importtime", "-m", "launcher", *arguments],
        capture_output=True,
        text=True,
        check=True,
    )
    modules = (line.rpartition("|")[2].strip() for line in child.stderr.splitlines())
    return {module.partition(".")[0] for module in modules}


@pytest.mark.parametrize("arguments", [("--help",), ("plan", "--help"), ("--version",)])
def test_help_imports_nothing_slow(arguments: tuple[str, ...]) -> None:
    imported = imported_by(*arguments)
    assert "launcher" in imported
    assert not imported & SLOW


def test_nothing_that_the_parent_imports_is_mindspore() -> None:
    commands = "; ".join(f"import {module}" for module, _ in COMMANDS.values())
    code = f"import sys; {commands}; print('mindspore' in sys.modules, 'numpy' in sys.modules)"
    child = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert child.stdout.split() == ["False", "True"], child.stderr


def test_help_names_every_command_and_exit_code(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit, match="^0$"):
        main(["--help"])
    text = capsys.readouterr().out
    assert all(f"  {command} " in text for command in COMMANDS)
    assert "124 deadline" in text


def test_the_version_is_printed(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit, match="^0$"):
        main(["--version"])
    assert capsys.readouterr().out == f"launcher {__version__}\n"


def flags_of(command: str) -> dict[str, Iterable[str] | None]:
    actions = make_parser(command)._actions
    return {action.dest: action.choices for action in actions if action.option_strings}


@pytest.mark.parametrize("command", ["run", "plan"])
def test_flags_and_keys_of_a_job_have_the_same_names(command: str) -> None:
    flags = flags_of(command).keys() - {"help", "version", "as_json", "dry_run", "set"}
    assert flags == Job.model_fields.keys() - {"search_path"}


@pytest.mark.parametrize("key", ["device", "engine"])
def test_flags_offer_what_a_job_accepts(key: str) -> None:
    assert flags_of("run")[key] == get_args(Job.model_fields[key].annotation)


@pytest.mark.parametrize("key", ["timeout", "phase_timeout"])
def test_help_tells_the_defaults_of_a_job(key: str) -> None:
    default = Job.model_fields[key].default
    action = next(action for action in make_parser("run")._actions if action.dest == key)
    assert f"(default: {default:g})" in str(action.help)


@pytest.mark.parametrize("arguments", [["--rank", "8"], ["--ranks", "many"], ["a.yaml", "b.yaml"]])
def test_bad_arguments_exit_with_2(arguments: list[str]) -> None:
    with pytest.raises(SystemExit, match="^2$"):
        main(arguments)


@pytest.mark.parametrize(
    ("typed", "meant"),
    [
        ("--netwrok=net:make", "unknown: --netwrok (did you mean --network?)"),
        ("rank-table check t.json --jsn", "unknown: --jsn (did you mean --json?)"),
        ("lyaout --ranks 8", "no command or job file lyaout (did you mean layout?)"),
    ],
)
def test_a_misspelt_word_is_told_what_it_looks_like(
    typed: str, meant: str, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit, match="^2$"):
        main(typed.split())
    assert meant in capsys.readouterr().err


def test_a_command_after_a_flag_is_pointed_out(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit, match="^2$"):
        main(["--ranks", "8", "plan"])
    assert "a command comes first: python -m launcher plan" in capsys.readouterr().err
