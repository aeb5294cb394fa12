"""Make a job of a YAML file and flags: flags win, and paths in the file start in its folder."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, TypeGuard

import yaml
from pydantic import ValidationError

from launcher.errors import JobError, Problem
from launcher.job import Job
from launcher.job_values import is_data_file, is_file_name, path_from, pattern_from, split_list
from launcher.validation import problems_of
from workers.resharding.remote.address import is_url

COMMAND_LINE = "command line"
_PATH_KEYS = (
    *("rank_table", "strategy", "strategy_ckpt_load_file", "key_file", "hostfile"),
    *("cluster_key_file", "cache", "hub_url", "hub_folder", "output", "labels"),
)
_ENTRY_POINT_KEYS = ("network", "loss")
_DATA_KEYS = ("predict_data", "dataset")


class _Loader(yaml.SafeLoader):
    """YAML in which no key stands twice: of two values, one would be lost without a word."""

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
        seen: set[str] = set()
        for key, _ in node.value:
            if isinstance(key, yaml.ScalarNode) and key.value in seen:
                what = f"the key {key.value!r} stands there twice"
                raise yaml.constructor.ConstructorError(problem=what, problem_mark=key.start_mark)
            seen.add(str(key.value))
        return super().construct_mapping(node, deep)


def load_job(path: Path | None, flags: Mapping[str, Any]) -> Job:
    """Return the job of a file (or none) with ``flags`` on top of it.

    Raises:
        JobError: names the file, the key and the fix of everything that is wrong.
    """
    in_file = _anchored(_read(path), path.parent.absolute()) if path else {}
    try:
        return Job.model_validate({**in_file, **flags})
    except ValidationError as error:
        raise _job_error(error, path, flags) from error


def parse_settings(settings: Sequence[str]) -> dict[str, Any]:
    """Return the keys that ``--set key=value`` names; a value is written as in a job file.

    Raises:
        JobError: one is no key and value.
    """
    values: dict[str, Any] = {}
    for setting in settings:
        key, equals, text = setting.partition("=")
        try:
            values[key.strip().replace("-", "_")] = yaml.safe_load(text)
        except (yaml.YAMLError, ValueError):
            equals = ""
        if not (key and equals):
            problem = Problem("--set", f"{setting!r} is no key=value", "write --set ranks=8")
            raise JobError(COMMAND_LINE, [problem])
    return values


def _read(path: Path) -> dict[str, Any]:
    try:
        document = yaml.load(path.read_text(encoding="utf-8"), _Loader)
    except yaml.YAMLError as error:
        problem = Problem("", " ".join(str(error).split()), "mend the YAML")
        raise JobError(str(path), [problem]) from error
    except RecursionError as error:
        raise JobError(str(path), [Problem("", "nested too deeply", "see README.md")]) from error
    except (OSError, ValueError) as error:  # no text, or no such date or number
        reason = getattr(error, "strerror", None) or str(error)
        raise JobError(str(path), [Problem("", reason, "name a job file, see --help")]) from error
    if not isinstance(document, dict) or not all(isinstance(key, str) for key in document):
        raise JobError(str(path), [Problem("", "not a list of 'key: value'", "see README.md")])
    return document


def _anchored(values: Mapping[str, Any], folder: Path) -> dict[str, Any]:
    """Make the paths of a job file absolute; whatever is no path yet is left to validation."""
    anchored = dict(values)
    for key in (*_PATH_KEYS, *_ENTRY_POINT_KEYS, *_DATA_KEYS):
        value = values.get(key)
        if not _is_path(value) or is_url(value):
            continue
        is_data = key in _DATA_KEYS and is_data_file(value)
        if key in _PATH_KEYS or is_data or _in_file(value):
            anchored[key] = str(path_from(folder, value))
    if isinstance(metrics := split_list(values.get("metrics")), list):
        anchored["metrics"] = [
            str(path_from(folder, name)) if _is_path(name) and _in_file(name) else name
            for name in metrics
        ]
    if _is_path(pattern := values.get("checkpoint")):
        anchored["checkpoint"] = pattern_from(folder, pattern)
    folders = values.get("search_path", [])
    if isinstance(folders, list):
        inside = (path_from(folder, entry) if _is_path(entry) else entry for entry in folders)
        anchored["search_path"] = [*inside, folder]
    return anchored


def _in_file(name: str) -> bool:
    return is_file_name(name.rpartition(":")[0])


def _is_path(value: Any) -> TypeGuard[str]:
    return isinstance(value, str) and value != "" and "\0" not in value


def _job_error(error: ValidationError, path: Path | None, flags: Mapping[str, Any]) -> JobError:
    problems = problems_of(error, Job.model_fields)
    from_flags = [p for p in problems if path is None or re.split(r"[.[]", p.where)[0] in flags]
    if not from_flags:
        return JobError(str(path), problems)
    named = [Problem(_flag(p.where), p.what, p.fix) for p in from_flags]
    return JobError(COMMAND_LINE, named)


def _flag(key: str) -> str:
    return "--" + key.replace("_", "-")
