"""Let a folder of files appear complete, or not at all; what was done before an end is kept.

Until then the files lie in a hidden folder beside the target, with a journal of what is done.
"""

from __future__ import annotations

import fcntl
import os
import shutil
from contextlib import AbstractContextManager
from pathlib import Path

from workers.resharding.errors import TargetFolderError

_JOURNAL = ".journal"


class Staging(AbstractContextManager["Staging"]):
    """The hidden folder. ``done`` holds the numbers of the tasks that an earlier run finished."""

    def __init__(self, target: Path, digest: str) -> None:
        self.target = Path(os.path.realpath(target))  # a link cannot be replaced by a folder
        self.folder = self.target.parent / f".{self.target.name}.partial"
        self.done: frozenset[int] = frozenset()
        self._digest = digest

    def __enter__(self) -> Staging:
        """Take the folder, with what an earlier run of the same work left there.

        Raises:
            TargetFolderError: the target is there already, or another process is at work.
        """
        try:
            if self.target.exists() and (not self.target.is_dir() or any(self.target.iterdir())):
                raise TargetFolderError(str(self.target), "it is not empty; name a new folder")
            if os.path.ismount(self.target):
                reason = "a file system is mounted there; name a new folder in it"
                raise TargetFolderError(str(self.target), reason)
            self.folder.mkdir(parents=True, exist_ok=True)
            journal = self.folder / _JOURNAL
            self._journal = journal.open("a+", encoding="ascii", errors="replace")
        except OSError as error:
            reason = f"cannot be made: {error.strerror}"
            raise TargetFolderError(str(self.target), reason) from error
        try:
            fcntl.flock(self._journal, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            self._journal.close()
            reason = "another process is writing it; wait for it, or name another folder"
            raise TargetFolderError(str(self.target), reason) from error
        self._take_over()
        return self

    def __exit__(self, *raised: object) -> None:
        self._journal.close()

    def finish(self, number: int) -> None:
        """Note that a task is done, and its bytes on disk."""
        self._journal.write(f"{number}\n")
        self._journal.flush()

    def commit(self) -> None:
        """Let the files appear."""
        (self.folder / _JOURNAL).unlink()
        for path in [self.folder, *(entry for entry in self.folder.iterdir() if entry.is_dir())]:
            _sync_folder(path)
        try:
            os.rename(self.folder, self.target)
        except OSError as error:
            reason = f"cannot be made: {error.strerror}; the files are in {self.folder}"
            raise TargetFolderError(str(self.target), reason) from error
        _sync_folder(self.target.parent)

    def start_over(self) -> None:
        """Remove what is done."""
        self.done = frozenset()
        self._clear()
        self._write_journal()

    def _take_over(self) -> None:
        """Keep what is done if it is the same work; remove it otherwise."""
        self._journal.seek(0)
        digest, *numbers = self._journal.read().split("\n")
        if digest != self._digest:
            self.start_over()
            return
        # The last is empty, or of a line that was not written out; a power cut may leave others.
        self.done = frozenset(int(number) for number in numbers[:-1] if number.isdecimal())
        self._write_journal()

    def _write_journal(self) -> None:
        self._journal.truncate(0)
        self._journal.writelines(f"{line}\n" for line in (self._digest, *sorted(self.done)))
        self._journal.flush()

    def _clear(self) -> None:
        for entry in self.folder.iterdir():
            if entry.is_dir():
                shutil.rmtree(entry)
            elif entry.name != _JOURNAL:
                entry.unlink()


def _sync_folder(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
