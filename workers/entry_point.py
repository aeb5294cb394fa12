"""Find the callable that the user named: ``pkg.module:name`` or ``path/file.py:name``."""

from __future__ import annotations

import difflib
import importlib
import importlib.util
import pkgutil
import sys
import traceback
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from types import ModuleType
from typing import Any

from workers.errors import InputError, WorkerError


class EntryPointError(InputError):
    """The name leads to nothing that can be called."""

    def __init__(self, name: str, problem: str, hint: str) -> None:
        super().__init__(name, problem, hint)
        self.name, self.problem, self.hint = name, problem, hint

    def __str__(self) -> str:
        return f"{self.name}: {self.problem}; {self.hint}"


class FactoryError(InputError):
    """The code that the user named, or what it returned, raised an error."""

    def __init__(self, name: str, said: str, where: str) -> None:
        super().__init__(name, said, where)
        self.name, self.said, self.where = name, said, where

    def __str__(self) -> str:
        return f"{self.name} raised {self.said} ({self.where})"


def words_of(error: BaseException) -> str:
    """Return the kind of an error and its message, as a traceback ends."""
    return "".join(traceback.format_exception_only(error)).strip()


@contextmanager
def blaming(name: str) -> Iterator[None]:
    """Make errors of the user's code inside errors of what it was to return: bad input.

    Raises:
        FactoryError: says where in the user's code, if it went that far.
    """
    try:
        yield
    except (WorkerError, MemoryError):
        raise
    except Exception as error:
        frames = traceback.extract_tb(error.__traceback__)[1:]  # the first one is the yield above
        module = name.rpartition(":")[0].removesuffix(".py").replace(".", "/")
        frame = next((f for f in reversed(frames) if module in f.filename), frames[-1])
        said = words_of(error)
        where = f"{frame.filename}, line {frame.lineno}"
        raise FactoryError(name, said, where) from error


def load_entry_point(name: str, search_path: Sequence[str] = ()) -> Callable[..., Any]:
    """Import the module and return the callable.

    An error inside the user's module is raised as it is, so that its traceback shows the line.

    Args:
        search_path: folders that are put in front of ``sys.path``, and that a relative
            ``path/file.py`` may start from when it is not in the current folder.

    Raises:
        EntryPointError: there is no such module, file or name, or it cannot be called.
    """
    module_name, _, attribute = name.rpartition(":")
    if not module_name or not attribute:
        raise EntryPointError(name, "names no callable", "write pkg.module:name or file.py:name")
    sys.path[:0] = [folder for folder in search_path if folder not in sys.path]
    if module_name.endswith(".py"):
        module = _import_file(name, Path(module_name), search_path)
    else:
        module = _import_module(name, module_name)
    found = getattr(module, attribute, None)
    if found is None:
        known = [key for key in vars(module) if not key.startswith("_")]
        raise EntryPointError(
            name, f"{module_name} has no {attribute!r}", _did_you_mean(attribute, known)
        )
    if not callable(found):
        kind = type(found).__name__
        raise EntryPointError(name, f"it is of type {kind}", "name a function or a class")
    return found  # type: ignore[no-any-return]


def _import_module(name: str, module_name: str) -> ModuleType:
    try:
        return importlib.import_module(module_name)
    except ModuleNotFoundError as error:
        missing = error.name or ""
        if missing != module_name and not module_name.startswith(f"{missing}."):
            raise  # the user's module was found; it imports something that is missing
        package, _, last = missing.rpartition(".")
        folders = sys.modules[package].__path__ if package else sys.path
        known = {module.name for module in pkgutil.iter_modules(folders)}
        raise EntryPointError(
            name, f"there is no module {missing!r}", _did_you_mean(last, known)
        ) from error


def _import_file(name: str, given: Path, search_path: Sequence[str]) -> ModuleType:
    """Import a file as ``python file.py`` would: the modules beside it can be imported too."""
    candidates = [given.absolute(), *(Path(folder, given).absolute() for folder in search_path)]
    path = next((candidate for candidate in candidates if candidate.is_file()), None)
    if path is None:
        raise EntryPointError(name, f"there is no file {candidates[0]}", "check the path")
    if str(path.parent) not in sys.path:
        sys.path.insert(0, str(path.parent))
    for module_name in (path.stem, str(path)):  # the second when a stranger has the first
        loaded = sys.modules.get(module_name)
        if loaded is None:
            break
        if getattr(loaded, "__file__", None) == str(path):
            return loaded
    spec = importlib.util.spec_from_file_location(module_name, path)
    if spec is None or spec.loader is None:
        raise EntryPointError(name, f"{path} is no Python file", "name a .py file")
    module = sys.modules[module_name] = importlib.util.module_from_spec(spec)
    try:
        spec.loader.exec_module(module)
    except BaseException:
        del sys.modules[module_name]
        raise
    return module


def _did_you_mean(name: str, known: Iterable[str]) -> str:
    near = difflib.get_close_matches(name, list(known), n=1)
    return f"did you mean {near[0]!r}?" if near else "check the name and the search path"
