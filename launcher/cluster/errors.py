"""Name what can go wrong between the hosts of a job before its ranks start."""

from __future__ import annotations

from collections.abc import Sequence

from launcher.errors import DEADLINE_EXIT_CODE, LauncherError


class MembersMissingError(LauncherError):
    """Not all hosts or slots of the job have come in time."""

    exit_code = DEADLINE_EXIT_CODE

    def __init__(self, names: Sequence[str], limit_s: float) -> None:
        super().__init__(names, limit_s)
        self.names, self.limit_s = tuple(names), limit_s

    def __str__(self) -> str:
        return (
            f"no sign of {', '.join(self.names)} within {self.limit_s:g} s; is the same command"
            " running there, with the same key, and does it reach this host?"
        )


class MemberLostError(LauncherError):
    """A host or slot is gone, and its ranks with it."""

    def __init__(self, name: str) -> None:
        super().__init__(name)
        self.name = name

    def __str__(self) -> str:
        return f"{self.name} is gone again before the ranks have started"


class OtherJobError(LauncherError):
    """Two hosts were told to run different jobs."""

    exit_code = 2

    def __init__(self, name: str, key: str, theirs: object, ours: object) -> None:
        super().__init__(name, key, theirs, ours)
        self.name, self.key, self.theirs, self.ours = name, key, theirs, ours

    def __str__(self) -> str:
        return (
            f"{self.name} was started with another {self.key}: {self.theirs} there, {self.ours}"
            " here; start the same command on every host"
        )


class HeadLostError(LauncherError):
    """The launcher that leads the job is gone."""

    def __init__(self, address: str, was_known: bool) -> None:
        super().__init__(address, was_known)
        self.address, self.was_known = address, was_known
        self.exit_code = 1 if was_known else 2

    def __str__(self) -> str:
        if self.was_known:
            return f"the launcher of rank 0 at {self.address} is gone; the ranks here are ended"
        return (
            f"{self.address} hangs up: it does not know our key, or has just ended; is the key the"
            " same on every host, and the port free for the launcher?"
        )


class OuterFailedError(LauncherError):
    """The mpirun, srun or sbatch that the launcher has started did not do its work."""

    def __init__(self, program: str, exit_code: int, said: str) -> None:
        super().__init__(program, exit_code, said)
        self.program, self.exit_code, self.said = program, exit_code, said

    def __str__(self) -> str:
        return f"{self.program} left with exit code {self.exit_code}: {self.said}"
