"""Turn what pydantic finds wrong in a document into problems that a user can act on."""

from __future__ import annotations

import difflib
import reprlib
from collections.abc import Collection, Sequence
from typing import Any

from pydantic import ValidationError
from pydantic_core import ErrorDetails

from launcher.errors import Problem

_SHOWN = reprlib.Repr()  # never more than a few words of what may be endless
_SHOWN.maxlevel, _SHOWN.maxstring, _SHOWN.maxother = 2, 60, 60


def did_you_mean(name: str, known: Collection[str]) -> str:
    """Return the fix for a name that nobody knows."""
    near = difflib.get_close_matches(name.replace("-", "_"), known, n=1)
    return f"did you mean {near[0]}?" if near else f"known are {', '.join(sorted(known))}"


def key_path(location: Sequence[str | int], root: str = "") -> str:
    """Return ``("server_list", 0, "device")`` as ``server_list[0].device``."""
    path = root
    for step in location:
        path += f"[{step}]" if isinstance(step, int) else f".{step}" if path else step
    return path


def problems_of(error: ValidationError, known: Collection[str], root: str = "") -> list[Problem]:
    """Return one problem for each thing that pydantic found.

    Args:
        known: the keys that are allowed, for suggestions.
        root: what the paths of the problems start with.

    A validator says what is wrong and what to try with ``ValueError(what, fix)``.
    """
    return [_problem(details, known, root) for details in error.errors(include_url=False)]


def _problem(details: ErrorDetails, known: Collection[str], root: str) -> Problem:
    where, given = key_path(details["loc"], root), details["input"]
    match details["type"]:
        case "extra_forbidden":
            return Problem(where, "unknown key", did_you_mean(str(details["loc"][-1]), known))
        case "missing":
            return Problem(where, "missing", "add it")
        case "string_type" if given is None:
            return Problem(where, "no value", "write one behind it")
        case "string_type" if isinstance(given, list | dict):
            return Problem(where, f"{_shown(given)} is not a string", "write one value")
        case "string_type":
            return Problem(where, f"{_shown(given)} is not a string", f'write "{_shown(given)}"')
        case "literal_error":
            fix = f"try {details['ctx']['expected']}"
            return Problem(where, f"{_shown(given)} is not known", fix)
        case "too_short" if not given:
            return Problem(where, "empty", "write one or more")
        case "too_long" if isinstance(given, list):
            most = details["ctx"]["max_length"]
            return Problem(where, f"{len(given)} of them", f"at most {most} are read")
        case "value_error":
            return Problem(where, *details["ctx"]["error"].args)
        case _:
            fix = details["msg"].replace("Input should be", "it must be", 1)
            return Problem(where, f"{_shown(given)} cannot be used", fix)


def _shown(value: Any) -> str:
    try:
        text = _SHOWN.repr(value)
    except ValueError:  # Python writes down no integer of thousands of digits
        text = f"{type(value).__name__} of endless length"
    return text if len(text) <= 60 else text[:57] + "..."
