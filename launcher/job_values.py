"""Decide what a value of a job may be, whatever key it has; paths come out absolute."""

from __future__ import annotations

import json
import os
import re
from collections.abc import Iterable
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, BeforeValidator, Field

from launcher.text import parse_ranges
from workers.resharding.rank_files import escape
from workers.resharding.remote.address import is_url
from workers.resharding.remote.cache import parse_size

DATA_SUFFIXES = (".npy", ".npz", ".safetensors")
MOST = 65_536  # ranks, or threads of one
HUB = "hub:"  # begins the name of a model of MindSpore Hub
_MODEL = re.compile(r"\w[\w.-]*(/\w[\w.-]*){2,3}")


def split_entry_point(name: str) -> tuple[str, str]:
    """Return module (or file) and callable of ``pkg.module:name`` or ``path/file.py:name``."""
    module, _, attribute = name.rpartition(":")
    if not module or not attribute.isidentifier():
        raise ValueError(
            f"{name!r} does not name a callable", "write pkg.module:name or path/file.py:name"
        )
    return module, attribute


def is_file_name(module: str) -> bool:
    """Say whether an entry point's module is a file rather than a dotted name."""
    return module.endswith(".py")


def path_from(folder: str | Path, text: str | Path) -> Path:
    """Return a path that may start in ``folder``; ``~`` is the home directory."""
    return Path(folder, os.path.expanduser(text))


def pattern_from(folder: str | Path, text: str) -> str:
    """Return a pattern that may start in ``folder``; only what the user wrote is a pattern."""
    if is_url(text) or text.startswith(HUB):
        return text
    first, slash, rest = text.partition("/")
    home = os.path.expanduser(first)
    if home != first:
        text = escape(home) + slash + rest
    return str(Path(escape(str(folder)), text))


def is_data_file(name: str) -> bool:
    """Say whether data are files (or a folder of them) rather than a callable."""
    return name.partition(":")[0].endswith(DATA_SUFFIXES) or ":" not in name


def _data(name: str) -> str:
    if not is_data_file(name):
        return _entry_point(name)
    if name.endswith(DATA_SUFFIXES) or ".npz:" in name or ".safetensors:" in name:
        return str(_absolute(name))
    folder = _absolute(name)
    if not folder.is_dir():
        raise ValueError(
            f"{name!r} names no data",
            f"name a callable, pkg.module:name, a {', '.join(DATA_SUFFIXES)} file, or their folder",
        )
    return str(folder)


def _entry_point(name: str) -> str:
    if name.startswith(HUB):
        return _model(name)
    module, attribute = split_entry_point(name)
    return f"{_absolute(module)}:{attribute}" if is_file_name(module) else name


def _pattern(text: str) -> str:
    if text.startswith(HUB):
        return _model(text)
    return pattern_from(Path.cwd(), _without_nul(text))


def _model(name: str) -> str:
    if _MODEL.fullmatch(name.removeprefix(HUB)) is None:
        raise ValueError(f"{name!r} names no model", "write hub:mindspore/1.7/googlenet_cifar10")
    return name


def _json(value: Any) -> Any:
    if not isinstance(value, str):
        return value
    try:
        return json.loads(value)
    except ValueError as error:
        raise ValueError(f"{value!r} is no JSON", 'write \'{"num_classes": 10}\'') from error


def _strategy(value: Any) -> Any:
    if value in ("full_batch", "data_parallel"):
        return value
    try:
        parts = _json(value)
        counts = tuple(tuple(of_input) for of_input in parts)
    except (TypeError, ValueError):
        counts = ((0,),)
    if not all(type(count) is int and 1 <= count <= MOST for one in counts for count in one):
        raise ValueError(
            "it is no strategy of a dataset",
            "write full_batch, data_parallel, or how many parts each dim of each input has,"
            " [[4, 1], [4]]",
        )
    return counts


def _metric(name: str) -> str:
    return _entry_point(name) if ":" in name else name


def split_list(value: Any) -> Any:
    return [name.strip() for name in value.split(",")] if isinstance(value, str) else value


def split_patterns(texts: Iterable[str]) -> tuple[str, ...]:
    """Return the patterns of texts that may hold several, with commas between them."""
    return tuple(part for text in texts for part in split_list(text))


def _absolute(path: str | Path) -> Path:
    return path_from(Path.cwd(), _without_nul(str(path)))


def _source(text: str) -> str:
    return text if is_url(text) else str(_absolute(text))


def _size(text: str) -> str:
    parse_size(text)
    return text


def _not_blank(value: Any) -> Any:
    if value == "":  # else it would be the working directory
        raise ValueError("it is empty", "give it a value, or leave it out")
    return value


def _without_nul(text: str) -> str:
    if "\0" in text:
        raise ValueError(f"{text!r} holds a NUL character", "no file has such a name")
    return text


def _ranks(value: Any) -> Any:
    """Take ``0``, ``[0, 3]``, ``0,2-3`` or ``all``."""
    text = ",".join(map(str, value)) if isinstance(value, list | tuple) else str(value)
    try:
        if text != "all" and not all(parse_ranges(text) or [()]):
            raise ValueError("an empty range")
    except ValueError as error:
        raise ValueError(f"{text!r:.60} names no ranks", "write 0,3 or 0-7 or all") from error
    return text


def _not_empty(values: tuple[str, ...]) -> tuple[str, ...]:
    if not values:
        raise ValueError("it is empty", "name one, accuracy for example, or leave it out")
    return values


def _listed(value: Any) -> Any:
    return [value] if isinstance(value, str) else value


def _checks(names: tuple[str, ...]) -> tuple[str, ...]:
    from workers.resharding.verify import parse_checks  # brings NumPy, which may come later

    return parse_checks(names)


ParallelMode = Literal["semi_auto_parallel", "auto_parallel", "data_parallel"]
Count = Annotated[int, Field(strict=True, ge=1, le=MOST)]
DatasetStrategy = Annotated[
    Literal["full_batch", "data_parallel"] | tuple[tuple[Count, ...], ...],
    BeforeValidator(_strategy),
]
Seconds = Annotated[float, Field(strict=True, gt=0, allow_inf_nan=False)]
EntryPoint = Annotated[str, AfterValidator(_entry_point)]
NotBlank = BeforeValidator(_not_blank)
Data = Annotated[str, NotBlank, AfterValidator(_data)]
Metrics = Annotated[
    tuple[Annotated[str, AfterValidator(_metric)], ...],
    BeforeValidator(split_list),
    AfterValidator(_not_empty),
]
AbsolutePath = Annotated[Path, NotBlank, AfterValidator(_absolute)]
Source = Annotated[
    str,
    NotBlank,
    BeforeValidator(lambda v: str(v) if isinstance(v, Path) else v),
    AfterValidator(_source),
]
Pattern = Annotated[str, NotBlank, AfterValidator(_pattern)]
Arguments = Annotated[dict[str, Any], BeforeValidator(_json)]
FileWithKey = Annotated[str, NotBlank, AfterValidator(lambda text: str(_absolute(text)))]
Size = Annotated[str, AfterValidator(_size)]
Ranks = Annotated[str, BeforeValidator(_ranks)]
Names = Annotated[tuple[str, ...], BeforeValidator(_listed)]
Patterns = Annotated[Names, AfterValidator(split_patterns)]
Checks = Annotated[Names, AfterValidator(_checks)]
SearchPath = Annotated[
    tuple[AbsolutePath, ...],
    Field(validate_default=True),
    AfterValidator(lambda folders: (*folders, Path.cwd())),
]
