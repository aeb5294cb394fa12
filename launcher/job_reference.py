"""Describe the keys of a job: docs/job.md and the file that ``init`` writes are made here.

    python -m launcher.job_reference > docs/job.md
"""

from __future__ import annotations

import ast
import inspect
import json
from collections.abc import Iterator, Mapping
from itertools import pairwise
from typing import Any

import yaml

from launcher.job import Job

_KINDS = {"string": "text", "integer": "number", "boolean": "true or false", "object": "mapping"}
# What a first job says, by its task; every other key stands there as a comment.
_EXAMPLES: Mapping[str, Mapping[str, Any]] = {
    "predict": {
        "network": "net.py:make_network",
        "predict_data": "net.py:make_input",
        "ranks": 8,
        "checkpoint": "train/rank_{rank}/*.ckpt",
        "strategy": "train/strategy.ckpt",
    },
    "eval": {
        "task": "eval",
        "network": "net.py:make_network",
        "dataset": "net.py:create_dataset",
        "loss": "net.py:make_loss",
        "metrics": ["accuracy", "loss"],
        "ranks": 1,
        "checkpoint": "net.ckpt",
    },
}


def markdown() -> str:
    """Return docs/job.md."""
    lines = [
        "# The keys of a job",
        "",
        "A job file is YAML. Each key but `search_path` is also a flag, with `-` for `_`, and each"
        " a keyword of `launcher.load_job`;",
        "flags win over the file, and `--set key=value` sets any key. Paths in a file are relative"
        " to the file.",
        "",
        "Made by `python -m launcher.job_reference`; `python -m launcher init` writes a job file"
        " to begin with.",
        "",
        "| key | value | default | |",
        "|-----|-------|---------|-|",
    ]
    described = _descriptions()
    for name, schema in _properties():
        said = " ".join(described[name].split())
        cells = (f"`{name}`", _kind(schema), _default(name, schema), said)
        lines.append(f"| {' | '.join(cell.replace('|', chr(92) + '|') for cell in cells)} |")
    return "\n".join(lines) + "\n"


def template(task: str) -> str:
    """Return a job file that says what most jobs say, with all else as comments."""
    lines = [
        "# python -m launcher job.yaml",
        "# Paths are relative to this file. Flags of the same names win: --ranks 8.",
    ]
    examples, described = _EXAMPLES[task], _descriptions()
    for name, schema in _properties():
        said = described[name].split("\n")
        lines += ["", *(f"# {line}" for line in said)]
        if choices := schema.get("enum"):
            lines.append(f"# One of {', '.join(choices)}.")
        if name in examples:
            lines.append(_line(name, examples[name]))
        else:
            lines.append(f"# {_line(name, schema.get('default'))}")
    return "\n".join(lines) + "\n"


def _properties() -> Iterator[tuple[str, Mapping[str, Any]]]:
    """Yield each key with what JSON schema says of it; that it may be left out goes without."""
    for name, schema in Job.model_json_schema()["properties"].items():
        some = [kind for kind in schema.get("anyOf", ()) if kind.get("type") != "null"]
        yield name, {**schema, **(some[0] if some else {})}


def _line(name: str, value: Any) -> str:
    if value is None:
        return f"{name}:"
    if isinstance(value, (list, dict)):
        return f"{name}: {yaml.safe_dump(value, default_flow_style=True).strip()}"
    return yaml.safe_dump({name: value}).strip()


def _kind(schema: Mapping[str, Any]) -> str:
    if "enum" in schema:
        return " | ".join(schema["enum"])
    if schema.get("type") == "array":
        return "list"
    if schema.get("format") == "path":
        return "path"
    return _KINDS.get(schema.get("type", ""), str(schema.get("type", "")))


def _default(name: str, schema: Mapping[str, Any]) -> str:
    if Job.model_fields[name].is_required():
        return "required"
    default = schema.get("default")
    return "" if default in (None, "", [], {}) else f"`{json.dumps(default).strip(chr(34))}`"


def _descriptions() -> dict[str, str]:
    """Return the text below each key of the job. Pydantic would look for it at every start."""
    (job,) = ast.parse(inspect.getsource(Job)).body
    assert isinstance(job, ast.ClassDef)
    return {
        key.target.id: inspect.cleandoc(str(below.value.value))
        for key, below in pairwise(job.body)
        if isinstance(key, ast.AnnAssign)
        and isinstance(key.target, ast.Name)
        and isinstance(below, ast.Expr)
        and isinstance(below.value, ast.Constant)
    }


if __name__ == "__main__":
    print(markdown(), end="")
