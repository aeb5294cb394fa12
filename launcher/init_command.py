"""Carry out ``launcher init``: write a commented job file to begin with."""

from __future__ import annotations

import argparse
import json
from pathlib import Path

from launcher.errors import JobError, Problem
from launcher.text import short


def add_flags(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "file", nargs="?", type=Path, default=Path("job.yaml"), help="default: job.yaml"
    )
    parser.add_argument(
        "--task", choices=("predict", "eval"), default="predict", help="what the job shall do"
    )


def execute(arguments: argparse.Namespace, as_json: bool = False) -> int:
    """Write the file; one that is there stays as it is.

    Raises:
        JobError: the file exists.
        OSError: it cannot be written.
    """
    from launcher.job_reference import template

    path = arguments.file.absolute()
    try:
        with open(path, "x", encoding="utf-8") as file:
            file.write(template(arguments.task))
    except FileExistsError as error:
        problem = Problem("", "it exists", "name another file: python -m launcher init FILE")
        raise JobError(str(path), [problem]) from error
    if as_json:
        print(json.dumps({"job": str(path)}))
    else:
        print(f"wrote {short(path)}; name your network and data in it, then")
        print(f"    python -m launcher plan {short(path)}")
        print(f"    python -m launcher {short(path)}")
    return 0
