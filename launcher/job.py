"""Decide what a run depends on: a job file, then flags, become one checked, frozen ``Job``."""

from __future__ import annotations

import json
import os
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any, Literal, TypeGuard

import yaml
from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    ValidationError,
    ValidationInfo,
    field_validator,
    model_validator,
)

from launcher.errors import JobError, Problem
from launcher.text import parse_ranges
from launcher.validation import problems_of
from workers.resharding.rank_files import escape
from workers.resharding.remote.address import is_url
from workers.resharding.remote.cache import parse_size
from workers.resharding.verify import parse_checks

COMMAND_LINE = "command line"
DATA_SUFFIXES = (".npy", ".npz", ".safetensors")
MOST = 65_536  # ranks, or threads of one
HUB = "hub:"  # begins the name of a model of MindSpore Hub
_MODEL = re.compile(r"\w[\w.-]*(/\w[\w.-]*){2,3}")
_PATH_KEYS = (
    *("rank_table", "strategy", "strategy_ckpt_load_file"),
    *("key_file", "cache", "hub_url", "hub_folder", "output", "labels"),
)
_ENTRY_POINT_KEYS = ("network", "loss")
_DATA_KEYS = ("predict_data", "dataset")


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


def _metric(name: str) -> str:
    return _entry_point(name) if ":" in name else name


def _split(value: Any) -> Any:
    return [name.strip() for name in value.split(",")] if isinstance(value, str) else value


def _absolute(path: str | Path) -> Path:
    return path_from(Path.cwd(), _without_nul(str(path)))


def _source(text: str) -> str:
    return text if is_url(text) else str(_absolute(text))


def _size(text: str) -> str:
    parse_size(text)
    return text


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


def _listed(value: Any) -> Any:
    return [value] if isinstance(value, str) else value


ParallelMode = Literal["semi_auto_parallel", "auto_parallel", "data_parallel"]
Count = Annotated[int, Field(strict=True, ge=1, le=MOST)]
Seconds = Annotated[float, Field(strict=True, gt=0, allow_inf_nan=False)]
EntryPoint = Annotated[str, AfterValidator(_entry_point)]
Data = Annotated[str, AfterValidator(_data)]
Metrics = Annotated[
    tuple[Annotated[str, AfterValidator(_metric)], ...], BeforeValidator(_split)
]
AbsolutePath = Annotated[Path, AfterValidator(_absolute)]
Source = Annotated[
    str, BeforeValidator(lambda v: str(v) if isinstance(v, Path) else v), AfterValidator(_source)
]
Pattern = Annotated[str, AfterValidator(_pattern)]
Arguments = Annotated[dict[str, Any], BeforeValidator(_json)]
FileWithKey = Annotated[str, AfterValidator(lambda text: str(_absolute(text)))]
Ranks = Annotated[str, BeforeValidator(_ranks)]
Names = Annotated[tuple[str, ...], BeforeValidator(_listed)]
Checks = Annotated[Names, AfterValidator(parse_checks)]
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

    task: Literal["predict", "eval"] = "predict"
    """Predict, or evaluate as Model.eval of MindSpore does."""
    parallel_mode: ParallelMode = "semi_auto_parallel"
    """How ranks share the work: data_parallel gives each whole weights and a part of the data;
    auto_parallel lets MindSpore search for strategies, on devices."""
    network: EntryPoint
    """Callable that returns the network: pkg.module:name or path/file.py:name; or a model of
    MindSpore Hub, hub:mindspore/1.7/googlenet_cifar10."""
    network_args: Arguments = {}
    """Keyword arguments of that callable, in JSON."""
    predict_data: Data | None = Field(default=None, validate_default=True)
    """Callable that returns the input: a Tensor, a tuple of them, an iterable of batches or a
    mindspore.dataset. Or a .npy, .npz or .safetensors file, file:key, or a folder of them."""
    dataset: Data | None = Field(default=None, validate_default=True)
    """To evaluate: the same, of (input, label) batches."""
    loss: EntryPoint | None = None
    """To evaluate: callable that returns the loss; the metric loss needs it."""
    metrics: Metrics = ("accuracy",)
    """To evaluate: names that MindSpore knows, or a callable that returns {name: Metric}."""
    batch_size: Count | None = None
    """Samples of a batch, for data callables that take batch_size; of files 32 if not given."""
    dataset_sink_mode: bool = False
    """To evaluate on one device that can: let it fetch the batches by itself."""
    ranks: Count | None = None
    """How many ranks predict; without it, as many as the rank table names."""
    rank_table: AbsolutePath | None = None
    """HCCL rank table (JSON) that says which rank runs on which device."""
    checkpoint: Pattern | None = None
    """Saved weights: a pattern with {rank}, a folder with rank_N inside, or one whole file; or
    a URL of these; or a model of the hub. A model's network comes with its weights, unless others
    are named, and the other way round."""
    strategy: Source | None = None
    """Strategy file of the training run that wrote the slices."""
    verify: Checks = ()
    """What to check of the files before a rank starts: crc, sha256, replicas, replicas=full."""
    allow_missing: Names = ()
    """Patterns of parameters that the checkpoint may lack; they keep their initial values."""
    key_file: AbsolutePath | None = None
    """File with the key of an encrypted checkpoint; no key is ever on a command line."""
    cache: AbsolutePath | None = None
    """Folder in which parts of remote files are kept; LAUNCHER_CACHE, or one in ~/.cache."""
    cache_size: Annotated[str, AfterValidator(_size)] | None = None
    """How much of remote files is kept at most, 64G for example."""
    hub_url: Source | None = None
    """Where the pages of the hub are, a URL or a folder; LAUNCHER_HUB_URL, or gitee.com."""
    hub_folder: AbsolutePath | None = None
    """Folder with the mindspore_hub_conf.py of the hub's model."""
    trust_code: bool = False
    """Let mindspore_hub download the code of the model, and run it."""
    device: Literal["auto", "ascend", "gpu", "cpu"] = "auto"
    """Where ranks run; cpu means simulated ranks, auto takes Ascend devices where there are any."""
    engine: Literal["auto", "local", "hosts", "mpi", "slurm"] = "auto"
    """What starts the ranks: this host, each host of the rank table for itself, mpirun or srun."""
    auto_parallel_cell: bool = False
    """On devices: tell MindSpore by AutoParallel(cell), not by set_auto_parallel_context."""
    search_mode: Literal["recursive_programming", "sharding_propagation"] = "recursive_programming"
    """How auto_parallel searches."""
    pipeline_stages: Count = 1
    """On devices: stages of the network's pipeline; every rank gets the result of the last one."""
    strategy_ckpt_load_file: AbsolutePath | None = None
    """On devices: strategy file from which MindSpore takes the strategies of operators."""
    jit_level: Literal["O0", "O1", "O2"] | None = None
    """On devices: how MindSpore compiles the graph; its own choice without it."""
    max_device_memory: Annotated[str, Field(pattern=r"^\d+(\.\d+)?GB$")] | None = None
    """Memory of the device that MindSpore may take, 30GB for example."""
    load_before_init: bool = False
    """On devices: read the slices before the ranks take their devices and meet."""
    hostfile: AbsolutePath | None = None
    """Hosts for mpirun."""
    engine_args: str = ""
    """More arguments for mpirun, srun or sbatch: '--partition=npu --nodes=2'."""
    node: str | None = None
    """Which server of the rank table this host is, where it cannot tell by itself."""
    port: Annotated[int, Field(strict=True, ge=1024, le=65534)] | None = None
    """Where the launcher of rank 0 listens for other hosts; it needs the next port too."""
    cluster_key_file: AbsolutePath | None = None
    """File that holds the key by which hosts know each other; else LAUNCHER_CLUSTER_KEY does."""
    output: AbsolutePath | None = None
    """Folder for predictions, summary and logs; runs/<time> by default."""
    tee: Ranks | None = None
    """Ranks whose output is shown while they run, each line with its rank: 0,3 or 0-7 or all."""
    resume: bool = False
    """Go on from the last whole batch of the same run in output, if it was killed or failed."""
    timeout: Seconds = 3600.0
    """Seconds that the whole run may take."""
    phase_timeout: Seconds = 600.0
    """Seconds that a rank may spend in one phase."""
    max_restarts: Annotated[int, Field(strict=True, ge=0, le=MOST)] = 0
    """How often all ranks may be started again, from the last whole batch, after a rank died."""
    labels: FileWithKey | None = None
    """True classes of the samples, file.npy or file.npz:key; prints the accuracy."""
    check_single: bool = False
    """Predict the same in one process afterwards, and print the largest difference."""
    tolerance: Annotated[float, Field(strict=True, ge=0, allow_inf_nan=False)] = 0.01
    """Largest difference, relative to an output's largest value, that check_single accepts."""
    threads: Count | None = None
    """CPU threads of each rank; by default the cores of this host, shared out."""
    bind: Literal["auto", "none", "cores", "numa"] = "auto"
    """Cores of each rank: a share of its own, those of its device's NUMA node, or all of them."""
    search_path: SearchPath = ()
    """Folders in which modules are looked for first; the working directory always comes last."""

    @model_validator(mode="before")
    @classmethod
    def _both_of_the_hub(cls, values: Any) -> Any:
        """Take the weights of a model with its network, and the other way round."""
        if not isinstance(values, dict):
            return values
        named = (values.get(key) for key in ("network", "checkpoint"))
        models = (value for value in named if isinstance(value, str) and value.startswith(HUB))
        model = next(models, None)
        return values if model is None else {"network": model, "checkpoint": model} | values

    @field_validator("predict_data", "dataset")
    @classmethod
    def _required(cls, name: str | None, info: ValidationInfo) -> str | None:
        task = "eval" if info.field_name == "dataset" else "predict"
        if name is None and info.data.get("task") == task:
            raise ValueError("missing", "add it")
        return name

    @field_validator("resume")
    @classmethod
    def _where(cls, asked: bool, info: ValidationInfo) -> bool:
        if asked and info.data.get("output") is None:
            raise ValueError("nobody knows which run to resume", "name its output folder")
        return asked

    @field_validator("check_single")
    @classmethod
    def _predictions_only(cls, asked: bool, info: ValidationInfo) -> bool:
        if asked and info.data.get("task") == "eval":
            raise ValueError("it compares predictions", "leave it out of an evaluation")
        return asked

    @property
    def data(self) -> str:
        """The callable whose batches this task is about."""
        name = self.dataset if self.task == "eval" else self.predict_data
        assert name is not None  # it was required
        return name


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
        document = yaml.safe_load(path.read_text(encoding="utf-8"))
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
    if isinstance(metrics := _split(values.get("metrics")), list):
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
    return isinstance(value, str) and "\0" not in value


def _job_error(error: ValidationError, path: Path | None, flags: Mapping[str, Any]) -> JobError:
    problems = problems_of(error, Job.model_fields)
    from_flags = [problem for problem in problems if path is None or problem.where in flags]
    if not from_flags:
        return JobError(str(path), problems)
    named = [Problem(_flag(p.where), p.what, p.fix) for p in from_flags]
    return JobError(COMMAND_LINE, named)


def _flag(key: str) -> str:
    return "--" + key.replace("_", "-")
