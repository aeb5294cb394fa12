"""Name every path of a run; nothing else joins paths inside the output folder.

``predictions.npy`` is there if and only if the latest run in this folder ended verified: a
run that starts sets the result of an earlier one aside as ``predictions.previous.npy``, and
only a verified result gets the name. What a failed run had verified until then stays as
``predictions.partial.npy``. Logs are of the latest run, or of its ranks since their last restart.
"""

from __future__ import annotations

import errno
import fcntl
import os
import shutil
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from launcher.errors import FolderInUseError

_NO_LOCKS = (errno.ENOLCK, errno.ENOSYS, errno.EOPNOTSUPP)  # some network file systems


@dataclass(frozen=True)
class RunFolder:
    """The output folder of one run. Parent only."""

    root: Path  # absolute, because ranks may change their directory

    @property
    def summary(self) -> Path:
        return self.root / "summary.json"

    @property
    def progress(self) -> Path:
        """How far a run has come that is not finished, for the next one to go on from."""
        return self.root / "progress.json"

    @property
    def rank_table(self) -> Path:
        """The table as this run used it, for RANK_TABLE_FILE."""
        return self.root / "rank_table.json"

    @property
    def logs(self) -> Path:
        return self.root / "logs"

    @property
    def engine_log(self) -> Path:
        """What the process that starts the ranks of this host had to say."""
        return self.logs / "engine.log"

    @property
    def events(self) -> Path:
        """What happened when; see docs/events.md."""
        return self.root / "events.jsonl"

    @property
    def single(self) -> RunFolder:
        """What one process predicted, to compare with."""
        return RunFolder(self.root / "single")

    def log(self, rank: int) -> Path:
        """Standard output and error of a rank."""
        return self.logs / f"rank_{rank}.log"

    def predictions(self, index: int = 0, count: int = 1) -> Path:
        """The verified output ``index`` of a network that has ``count`` outputs."""
        return self.root / f"predictions{_suffix(index, count)}.npy"

    @property
    def labels(self) -> Path:
        """The labels that belong to the predictions of an evaluation."""
        return self.root / "labels.npy"

    def results(self, count: int, labelled: bool) -> list[Path]:
        """What the ranks deliver: so many arrays, of which the last may be the labels."""
        outputs = count - labelled
        paths = [self.predictions(index, outputs) for index in range(outputs)]
        return [*paths, self.labels] if labelled else paths

    def partial(self, index: int = 0, count: int = 1) -> Path:
        """The same output while the run goes on, and after a run that failed."""
        return partial_of(self.predictions(index, count))

    @contextmanager
    def locked(self) -> Iterator[None]:
        """Make the folder, and keep other runs out of it; the kernel lets go when we end.

        Raises:
            FolderInUseError: another run holds it.
            OSError: it cannot be made or written to.
        """
        self.create()
        lock = os.open(self.root / ".lock", os.O_RDWR | os.O_CREAT, 0o644)
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            os.close(lock)
            raise FolderInUseError(str(self.root)) from error
        except OSError as error:
            if error.errno not in _NO_LOCKS:  # then nobody can be kept out
                os.close(lock)
                raise
        try:
            yield
        finally:
            os.close(lock)

    def create(self) -> None:
        """Make the folder and its logs folder."""
        self.logs.mkdir(parents=True, exist_ok=True)

    def begin(self) -> None:
        """Make room for a new run; if it is killed, nothing must look like its result."""
        self.summary.unlink(missing_ok=True)
        if self.single.events.exists():  # else it is not ours
            shutil.rmtree(self.single.root, ignore_errors=True)
        self.set_aside_logs()
        self.create()

    def set_aside_logs(self, restart: int = 0) -> Path:
        """Rename the logs of an earlier run, or of the ranks before a restart; return the name.

        Earlier logs that had the name are forgotten, and with a new run those of restarts.
        """
        aside = self.root / (f"logs.before_restart_{restart}" if restart else "logs.previous")
        if self.logs.exists() and any(self.logs.iterdir()):
            outdated = [aside] if restart else [aside, *self.root.glob("logs.before_restart_*")]
            for folder in outdated:
                shutil.rmtree(folder, ignore_errors=True)
            self.logs.rename(aside)
        return aside

    def set_aside_results(self) -> None:
        """Rename the results of an earlier run, and forget the ones before and its remains."""
        results = [
            path
            for path in self._arrays(".npy")
            if path.stem in ("predictions", "labels")
            or path.stem.removeprefix("predictions_").isdecimal()
        ]
        self.progress.unlink(missing_ok=True)
        for path in self._arrays(".partial.npy"):
            path.unlink()
        if results:
            for path in self._arrays(".previous.npy"):
                path.unlink()
        for path in results:
            path.replace(path.with_suffix(".previous.npy"))

    def _arrays(self, suffix: str) -> list[Path]:
        """Return the files of runs, with this suffix, that lie here."""
        return [
            path
            for stem in ("predictions*", "labels")
            for path in self.root.glob(f"{stem}{suffix}")
        ]

    @property
    def partials(self) -> tuple[Path, ...]:
        """The files of verified batches of a run that is not finished."""
        return tuple(sorted(self._arrays(".partial.npy")))


def withdraw(results: Sequence[Path]) -> tuple[Path, ...]:
    """Take their names from results that are to be looked at, or that failed; return the others."""
    return tuple(path.replace(partial_of(path)) for path in results)


def restore(results: Sequence[Path]) -> None:
    """Give the names back to results that were withdrawn, as they have proved right."""
    for path in results:
        partial_of(path).replace(path)


def partial_of(path: Path) -> Path:
    """Return the name of a result before it is verified."""
    return path.with_suffix(".partial.npy")


def _suffix(index: int, count: int) -> str:
    return "" if count == 1 else f"_{index}"
