"""Watch over the mpirun or srun that the launcher has started to get its members. Parent only."""

from __future__ import annotations

import os
import signal
import subprocess
import tempfile
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path

from launcher.cluster.errors import OuterFailedError

END_S = 10.0  # to end by itself once the members have gone, and again when told to


class Outer:
    """A program that starts one process for each rank, and ends when they do."""

    def __init__(self, command: Sequence[str], environment: Mapping[str, str]) -> None:
        self._program = Path(command[0]).name
        self._output = tempfile.TemporaryFile()
        self._process = subprocess.Popen(
            command,
            stdin=subprocess.DEVNULL,
            stdout=self._output,
            stderr=subprocess.STDOUT,
            env=environment,
            start_new_session=True,  # Ctrl-C is for the launcher
        )
        self._descriptor = os.pidfd_open(self._process.pid)  # readable when it has ended

    @property
    def sources(self) -> Sequence[int]:
        return (self._descriptor,)

    def failure(self, within_s: float = 0.0) -> OuterFailedError | None:
        """Return how it ended, which it must not before the members do; None: it lives.

        Args:
            within_s: how long to wait for its end.
        """
        try:
            code = self._process.wait(within_s)
        except subprocess.TimeoutExpired:
            return None
        self._output.seek(0)
        said = self._output.read().decode(errors="replace").strip()
        exit_code = code if code > 0 else 128 - code if code < 0 else 1
        return OuterFailedError(self._program, exit_code, said or "without a word")

    def check(self) -> None:
        """Raise if it has ended.

        Raises:
            OuterFailedError: with its last words.
        """
        if (failure := self.failure()) is not None:
            raise failure

    def close(self) -> None:
        """Wait for its end, and hasten it if need be."""
        for number in (None, signal.SIGTERM, signal.SIGKILL):
            if number is not None:
                with suppress(ProcessLookupError):
                    os.killpg(self._process.pid, number)
            with suppress(subprocess.TimeoutExpired):
                self._process.wait(END_S)
                break
        os.close(self._descriptor)
        self._output.close()
