"""Decide what a run depends on: a job file, then flags, become one checked, frozen ``Job``."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, Literal

import yaml
from pydantic import AfterValidator, BaseModel, ConfigDict, Field, ValidationError

from launcher.errors import JobError, Problem
from launcher.validation import problems_of

COMMAND_LINE = "command line"
_PATH_KEYS = ("rank_table", "checkpoint", "strategy", "output", "labels")
_ENTRY_POINT_KEYS = ("network", "predict_data")


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


def _entry_point(name: str) -> str:
    module, attribute = split_entry_point(name)
    return f"{Path(module).absolute()}:{attribute}" if is_file_name(module) else name


Count = Annotated[int, Field(strict=True, ge=1)]
Seconds = Annotated[float, Field(strict=True, gt=0)]
EntryPoint = Annotated[str, AfterValidator(_entry_point)]
AbsolutePath = Annotated[Path, AfterValidator(Path.absolute)]
Pattern = Annotated[str, AfterValidator(lambda text: str(Path(text).absolute()))]
SearchPath = Annotated[
    tuple[AbsolutePath, ...],
    Field(validate_default=True),
    AfterValidator(lambda folders: (*folders, Path.cwd())),
]


class Job(BaseModel):
    """Everything a run depends on, checked. Made once, never changed.

    Keys of a job file and flags have these names too. Relative paths are relative to the
    working directory, those of a job file to the folder of that file.
    """

    model_config = ConfigDict(frozen=True, extra="forbid", use_attribute_docstrings=True)

    network: EntryPoint
    """Callable that returns the network: pkg.module:name or path/file.py:name."""
    predict_data: EntryPoint
    """Callable that returns the input: a Tensor, a tuple of them, or an iterable of batches."""
    ranks: Count | None = None
    """How many ranks predict; without it, as many as the rank table names."""
    rank_table: AbsolutePath | None = None
    """HCCL rank table (JSON) that says which rank runs on which device."""
    checkpoint: Pattern | None = None
    """Saved weights: a pattern with {rank}, a folder with rank_N inside, or one whole file."""
    strategy: AbsolutePath | None = None
    """Strategy file of the training run that wrote the slices."""
    device: Literal["auto", "ascend", "gpu", "cpu"] = "auto"
    """Where ranks run; cpu means simulated ranks, auto takes Ascend devices where there are any."""
    engine: Literal["auto", "local"] = "auto"
    """What starts the ranks; local starts them on this host."""
    output: AbsolutePath | None = None
    """Folder for predictions, summary and logs; runs/<time> by default."""
    timeout: Seconds = 3600.0
    """Seconds that the whole run may take."""
    phase_timeout: Seconds = 600.0
    """Seconds that a rank may spend in one phase."""
    labels: Pattern | None = None
    """True classes of the samples, file.npy or file.npz:key; prints the accuracy."""
    threads: Count | None = None
    """CPU threads of each rank; by default the cores of this host, shared out."""
    search_path: SearchPath = ()
    """Folders in which modules are looked for first; the working directory always comes last."""


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


def _read(path: Path) -> dict[str, Any]:
    try:
        document = yaml.safe_load(path.read_text(encoding="utf-8"))
    except yaml.YAMLError as error:
        problem = Problem("", " ".join(str(error).split()), "mend the YAML")
        raise JobError(str(path), [problem]) from error
    except (OSError, UnicodeDecodeError) as error:
        reason = getattr(error, "strerror", None) or str(error)
        raise JobError(str(path), [Problem("", reason, "name a job file, see --help")]) from error
    if not isinstance(document, dict) or not all(isinstance(key, str) for key in document):
        raise JobError(str(path), [Problem("", "not a list of 'key: value'", "see README.md")])
    return document


def _anchored(values: Mapping[str, Any], folder: Path) -> dict[str, Any]:
    """Make the paths of a job file absolute; whatever is no path yet is left to validation."""
    anchored = dict(values)
    for key in (*_PATH_KEYS, *_ENTRY_POINT_KEYS):
        value = anchored.get(key)
        if not isinstance(value, str):
            continue
        if key in _PATH_KEYS or is_file_name(value.rpartition(":")[0]):
            anchored[key] = str(folder / Path(value).expanduser())
    folders = values.get("search_path", [])
    if isinstance(folders, list):
        anchored["search_path"] = [*(folder / str(entry) for entry in folders), folder]
    return anchored


def _job_error(error: ValidationError, path: Path | None, flags: Mapping[str, Any]) -> JobError:
    problems = problems_of(error, Job.model_fields)
    from_flags = [problem for problem in problems if path is None or problem.where in flags]
    if not from_flags:
        return JobError(str(path), problems)
    named = [Problem(_flag(p.where), p.what, p.fix) for p in from_flags]
    return JobError(COMMAND_LINE, named)


def _flag(key: str) -> str:
    return "--" + key.replace("_", "-")
