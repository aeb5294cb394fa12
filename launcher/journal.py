"""Remember how far a run has come, so that the next one in its folder can go on from there.

The first line of the file says that, and is written anew with each verified batch; the second
says which run it is. What a killed process has written is safe with the kernel, but not after a
power cut: a run of an earlier boot of this machine is not continued.
"""

from __future__ import annotations

import json
import os
import platform
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from launcher.errors import JobError
from workers.resharding.atomic import atomic_file

_LINE = 1024  # bytes, so that one write replaces all of the first line
_BOOT_ID = Path("/proc/sys/kernel/random/boot_id")


@dataclass(frozen=True)
class Reached:
    """The last verified batch, which the next run predicts again, and what lies before it."""

    batches: int  # before it
    rows: tuple[int, ...]  # of each file, before it
    inputs: str  # checksum of what it was predicted from

    def uniform_ends(self) -> tuple[range, ...]:
        """Return for each file the row behind each batch, which were of one size."""
        sizes = (rows // self.batches for rows in self.rows)
        return tuple(range(size, size * self.batches + 1, size) for size in sizes)


NOTHING = Reached(batches=0, rows=(), inputs="")


class Journal:
    """The file of one run, open for as long as it goes on."""

    def __init__(self, path: Path, run: Mapping[str, Any], before: Reached) -> None:
        """Begin the file.

        Args:
            run: what must be the same when the run goes on.
            before: what this run goes on from.
        """
        self._path = path
        with atomic_file(path) as file:
            file.write(_first_line(before) + json.dumps(_with_boot(run)).encode() + b"\n")
        self._file = os.open(path, os.O_RDWR | os.O_CLOEXEC)

    def write(self, reached: Reached) -> None:
        """Say how far the run has come; the rows are in the files."""
        if reached.batches:
            os.pwrite(self._file, _first_line(reached), 0)

    def forget(self) -> None:
        """Remove the file: the run is finished."""
        self._path.unlink(missing_ok=True)

    def close(self) -> None:
        os.close(self._file)


def read_reached(path: Path, run: Mapping[str, Any]) -> Reached:
    """Return how far the same run has come before; ``NOTHING`` if there is nothing of it.

    Raises:
        JobError: what lies there is of another run, or not to be trusted.
    """
    try:
        first, second = path.read_text(encoding="utf-8").split("\n")[:2]
        found, before = json.loads(first), json.loads(second)
        reached = Reached(int(found["batches"]), tuple(found["rows"]), str(found["inputs"]))
    except (OSError, ValueError, KeyError, TypeError):
        return NOTHING  # the run was killed before its first batch, or was none
    now = _with_boot(run)
    if before.get("host") == now["host"] and before.get("boot") != now["boot"]:
        what = f"{path.parent}: the machine was restarted while or after that run wrote"
        raise JobError.about("resume", what, "start over without it")
    for key in run:
        if before.get(key) != now[key]:
            what = f"the run in {path.parent} had {key} {before.get(key)!r}, not {now[key]!r}"
            raise JobError.about("resume", what, "start over without it, or name another output")
    return reached if reached.batches else NOTHING


def _first_line(reached: Reached) -> bytes:
    line = json.dumps(asdict(reached)).encode()
    if len(line) >= _LINE:  # there are hundreds of outputs: such a run has to start over
        return _first_line(NOTHING)
    return line.ljust(_LINE - 1) + b"\n"


def _with_boot(run: Mapping[str, Any]) -> dict[str, Any]:
    boot = _BOOT_ID.read_text(encoding="ascii").strip() if _BOOT_ID.exists() else ""
    document: dict[str, Any] = {"host": platform.node(), "boot": boot, **run}
    found: dict[str, Any] = json.loads(json.dumps(document))  # tuples become lists, as in a file
    return found
