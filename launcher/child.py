"""Say how a child of ours is started so that it runs the same code as this process."""

from __future__ import annotations

import os
import sys
from collections.abc import Mapping
from pathlib import Path

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
