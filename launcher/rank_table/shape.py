"""Say which values of a document are not what the format wants there, in HCCL's words too."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from typing import Any, TypeAlias, TypeVar

from pydantic import BaseModel, ValidationError
from pydantic_core import ErrorDetails

from launcher.rank_table.finding import Finding, error
from launcher.rank_table.values import RuleError
from launcher.validation import problems_of

M = TypeVar("M", bound=BaseModel)
HcclWords: TypeAlias = Callable[[str, str], str]  # from a kind of pydantic's error and a key

_FIXES = {"model_type": "write {...}", "dict_type": "write {...}", "list_type": "write [...]"}
_LISTS = ("server_list", "device", "group_list", "instance_list", "devices")


class ShapeError(Exception):
    """A part of a document is not what its model wants; ``root`` is the path of the part."""

    def __init__(self, error: ValidationError, root: str) -> None:
        super().__init__(error, root)
        self.error, self.root = error, root


def validated(model: type[M], part: Mapping[str, Any], root: str = "$") -> M:
    """Return a part of a document as its model.

    Raises:
        ShapeError: a value is missing, has another type than HCCL wants, or is out of bounds.
    """
    try:
        return model.model_validate(part)
    except ValidationError as error:
        raise ShapeError(error, root) from error


def shape_findings(problem: ShapeError, words: HcclWords) -> Iterator[Finding]:
    """Yield a finding for each value that is not what its model wants."""
    problems = problems_of(problem.error, (), problem.root)
    for told, details in zip(problems, problem.error.errors(), strict=True):
        fix = _FIXES.get(details["type"], told.fix)
        if details["input"] is None and details["type"] == "string_type":
            fix = "write a string, or leave the key out"
        yield error(told.where, told.what, fix, _hccl_words(details, words))


def _hccl_words(details: ErrorDetails, words: HcclWords) -> str:
    rule = details.get("ctx", {}).get("error")
    if isinstance(rule, RuleError):
        return rule.hccl
    names = [step for step in details["loc"] if isinstance(step, str)]
    return words(details["type"], names[-1] if names else "")


def words_of_1(kind: str, key: str) -> str:
    """Return what HCCL says of a key in version 1.x."""
    if kind == "missing":
        code = "" if key in _LISTS else "EI0017 "
        return f"{code}json object has no property called {key}"
    if kind == "string_type":
        return f"EI0017 json object property value of Name[{key}] is not string!"
    if kind == "too_short":
        return f"get property[{key}] size is zero"
    if kind == "string_too_short":
        return f"{key}[] is empty"
    if kind == "string_too_long":
        return f"{key} length is too long"
    return ""


def words_of_2(kind: str, key: str) -> str:
    """Return what HCCL says of a key in version 2.0."""
    return f'error occurs when parser object of propName "{key}"'
