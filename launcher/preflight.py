"""Find what would make every rank fail, before any rank starts. Runs no code of the user."""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence
from importlib.machinery import ModuleSpec, PathFinder
from pathlib import Path

from launcher.errors import JobError
from launcher.job import Job
from launcher.job_values import is_data_file, is_file_name, split_entry_point
from launcher.labels import read_labels
from workers.resharding.checkpoint import SlicedCheckpoint, open_checkpoint
from workers.resharding.encryption import read_key
from workers.resharding.errors import ReshardError
from workers.resharding.remote.cache import Cache
from workers.resharding.verify import find_doubt, verify


def check(job: Job, output: Path) -> SlicedCheckpoint | None:
    """Return the checkpoint of ``job``, or raise for the first thing in it that cannot work here.

    Raises:
        JobError: names the key of the job, what is wrong with it and what to try.
    """
    check_entry_points(job)
    checkpoint = check_checkpoint(job)
    if job.labels is not None:
        read_labels(job.labels)
    _check_writable(output)
    return checkpoint


def check_entry_points(job: Job) -> None:
    """See that the modules of the network and its data are there; only a rank imports them."""
    named = [("network", job.network), ("predict_data", job.data)]
    if job.task == "eval":
        named[1:] = [("dataset", job.data)]
        named += [("loss", job.loss)] if job.loss else []
        named += [("metrics", name) for name in job.metrics if ":" in name]
    for key, name in named:
        if key in ("predict_data", "dataset") and is_data_file(name):
            _check_data(key, name)
            continue
        module, _ = split_entry_point(name)
        if is_file_name(module):
            if not Path(module).is_file():
                raise JobError.about(key, f"there is no file {module}", "check the path")
        elif not module_exists(module, [*map(str, job.search_path), *sys.path]):
            folders = ", ".join(dict.fromkeys(map(str, job.search_path)))
            fix = f"looked in {folders} and what Python searches; set PYTHONPATH, or name a file"
            raise JobError.about(key, f"there is no module {module}", fix)


def _check_data(key: str, name: str) -> None:
    path = Path(name if Path(name).exists() else name.rpartition(":")[0])
    if not path.exists():
        raise JobError.about(key, f"there is no file {name}", "check the path")


def check_checkpoint(job: Job) -> SlicedCheckpoint | None:
    """See that the files of all slices are there, whole, and fit their strategy."""
    if job.checkpoint is None:
        return None
    try:
        key = read_key(job.key_file, os.environ)
        cache = Cache.of(os.environ, job.cache, job.cache_size)
        return open_checkpoint(job.checkpoint, job.strategy, key, cache)
    except (ReshardError, OSError) as error:
        raise JobError.about("checkpoint", str(error)) from error


def verify_content(job: Job, checkpoint: SlicedCheckpoint | None) -> dict[str, int]:
    """Make the checks of its files' content that the job asks for; return what each compared."""
    if checkpoint is None:
        return {}
    try:
        return verify(checkpoint, job.verify)
    except (ReshardError, OSError) as error:
        raise JobError.about("checkpoint", str(error)) from error


def doubts(checkpoint: SlicedCheckpoint | None) -> tuple[str, ...]:
    """Return warnings of what looks wrong with a checkpoint, though it can be loaded."""
    doubt = find_doubt(checkpoint) if checkpoint is not None else None
    return (str(doubt),) if doubt is not None else ()


def _check_writable(output: Path) -> None:
    nearest = next(folder for folder in (output, *output.parents) if folder.exists())
    if not nearest.is_dir():
        raise JobError.about("output", f"{nearest} is a file", "name a folder")
    if not os.access(nearest, os.W_OK | os.X_OK):
        raise JobError.about("output", f"{nearest} is not writable", "name another folder")


def module_exists(name: str, folders: Sequence[str]) -> bool:
    """Follow a dotted name from folder to folder, without importing the packages on the way."""
    path: Sequence[str] | None = None
    parts = name.split(".")
    for depth in range(1, len(parts) + 1):
        spec = _find(".".join(parts[:depth]), path, folders)
        if spec is None:
            return False
        path = spec.submodule_search_locations
        if path is None:
            return depth == len(parts)
    return True


def _find(name: str, path: Sequence[str] | None, folders: Sequence[str]) -> ModuleSpec | None:
    """Ask whatever Python asks; editable installs have finders of their own.

    Args:
        path: of the package that the module is in; None for a top-level name.
        folders: what ``sys.path`` will be when a rank imports the module.
    """
    for finder in sys.meta_path:
        where = folders if path is None and finder is PathFinder else path
        spec = finder.find_spec(name, where)
        if spec is not None:
            return spec
    return None
