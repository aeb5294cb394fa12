"""Start a child of ours so that it runs the same code as this process, and ask it a question."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from launcher.errors import DEADLINE_EXIT_CODE, ReportError

LONGEST_WAIT_S = 1e6  # subprocess cannot wait for ever
OUR_CODE = str(Path(__file__).parents[1])  # the folder that holds launcher and workers


def python_module(module: str, *arguments: str) -> list[str]:
    """Return the command that runs a module of ``workers``.

    A folder of the user's that is called "workers" is not ours: -P keeps the working
    directory out of the child's search path.
    """
    return [sys.executable, "-P", "-m", module, *arguments]


def with_our_code(environment: Mapping[str, str]) -> dict[str, str]:
    """Return the environment in which a child finds ``workers`` first."""
    theirs = environment.get("PYTHONPATH")
    return {**environment, "PYTHONPATH": os.pathsep.join(filter(None, (OUR_CODE, theirs)))}


def ask(
    command: Sequence[str],
    request: Mapping[str, Any],
    environment: Mapping[str, str],
    timeout_s: float,
    late: str,
) -> dict[str, Any]:
    """Return what a child answers to a request; both are JSON. It dies with this process.

    Args:
        late: what to say when it has not answered in time.

    Raises:
        ReportError: it gave no answer; its own words say why.
    """
    try:
        child = subprocess.run(
            command,
            input=json.dumps({**request, "launcher": os.getpid()}),
            capture_output=True,
            text=True,
            env=with_our_code(environment),
            timeout=min(timeout_s, LONGEST_WAIT_S),
        )
    except subprocess.TimeoutExpired as error:
        raise ReportError(DEADLINE_EXIT_CODE, late) from error
    if child.returncode != 0:
        code = child.returncode if child.returncode > 0 else 128 - child.returncode
        raise ReportError(code, child.stderr.strip())
    try:
        answer: dict[str, Any] = json.loads(child.stdout)
    except ValueError as error:  # a module of the user's may call sys.exit()
        said = f"the process that was asked left before it had an answer\n{child.stderr}"
        raise ReportError(1, said.strip()) from error
    return answer
