"""Name what the parent can find wrong before any rank starts, and the exit code of each."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

DEADLINE_EXIT_CODE = 124  # what timeout(1) ends with, too


@dataclass(frozen=True)
class Problem:
    """One thing that is wrong in something that the user gave."""

    where: str  # a key of the job ("ranks") or a JSON path ("$.server_list[0].server_id")
    what: str
    fix: str = ""  # what to try; empty when ``what`` says it

    def __str__(self) -> str:
        reason = "; ".join(filter(None, (self.what, self.fix)))
        return ": ".join(filter(None, (self.where, reason)))


class LauncherError(Exception):
    """The launcher cannot go on. ``exit_code`` is what its process ends with."""

    exit_code = 1


class InvalidInputError(LauncherError):
    """Something that the user gave cannot be used; nothing has been started."""

    exit_code = 2

    def __init__(self, source: str, problems: Sequence[Problem]) -> None:
        super().__init__(source, problems)
        self.source = source  # the file that holds the problems, or "" for the command line
        self.problems = tuple(problems)

    def __str__(self) -> str:
        prefix = f"{self.source}: " if self.source else ""
        return "\n".join(f"{prefix}{problem}" for problem in self.problems)


class JobError(InvalidInputError):
    """The job, or a file that it names, cannot be used."""

    @classmethod
    def about(cls, key: str, what: str, fix: str = "") -> JobError:
        """Return the error that one value of the job is, wherever it was given."""
        return cls("", [Problem(key, what, fix)])


class RankTableError(InvalidInputError):
    """The rank table breaks a rule of its format."""


class HostError(LauncherError):
    """This host has not got what the job needs."""

    exit_code = 2

    def __init__(self, missing: str, fix: str) -> None:
        super().__init__(missing, fix)
        self.missing, self.fix = missing, fix

    def __str__(self) -> str:
        return f"{self.missing}; {self.fix}"


class FolderInUseError(LauncherError):
    """Two runs in one folder would mix their results."""

    exit_code = 2

    def __init__(self, folder: str) -> None:
        super().__init__(folder)
        self.folder = folder

    def __str__(self) -> str:
        return f"{self.folder}: another run writes here; wait for its end, or name another --output"


class SystemFailedError(LauncherError):
    """The operating system refused what a command needed when its work had begun."""

    def __init__(self, reason: str) -> None:
        super().__init__(reason)
        self.reason = reason

    def __str__(self) -> str:
        return self.reason


class ReportError(LauncherError):
    """A child that was asked a question gave no answer; it said why."""

    def __init__(self, exit_code: int, said: str) -> None:
        super().__init__(exit_code, said)
        self.exit_code, self.said = exit_code, said  # exit code and stderr of the child

    def __str__(self) -> str:
        return self.said or f"the process that was asked ended with exit code {self.exit_code}"


def reason_of(error: OSError) -> str:
    """Return what the operating system said, and of which file, in one line."""
    return ": ".join(filter(None, (str(error.filename or ""), error.strerror or str(error))))
