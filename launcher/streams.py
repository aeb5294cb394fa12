"""Decide what becomes of output that nobody reads, or that its reader cannot show.

A run must not end because of its own words: a reader that goes away (``| head``) misses the
rest of them, and characters that an encoding has not got are written as escapes.
"""

from __future__ import annotations

import errno
import io
import os
import sys
from types import TracebackType
from typing import TextIO

_READER_GONE = (errno.EPIPE, errno.EIO)  # of a pipe; of a terminal


def tell(line: str) -> None:
    """Say something of the run to a person, whatever standard output is for."""
    print(f"launcher: {line}", file=sys.stderr)


class LastingStream(io.TextIOBase):
    """A stream that outlives its reader, and whatever it is written to."""

    def __init__(self, stream: TextIO) -> None:
        self._stream = stream
        self.failure: OSError | None = None  # the first one, unless it is only a reader that left
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")

    @property
    def encoding(self) -> str:  # type: ignore[override]
        return self._stream.encoding

    def fileno(self) -> int:
        return self._stream.fileno()

    def isatty(self) -> bool:
        return self._stream.isatty()

    def writable(self) -> bool:
        return True

    def write(self, text: str) -> int:
        try:
            self._stream.write(text)
        except OSError as error:
            self._write_no_more(error)
        return len(text)

    def flush(self) -> None:
        try:
            self._stream.flush()
        except OSError as error:
            self._write_no_more(error)

    def _write_no_more(self, error: OSError) -> None:
        """Let the rest go nowhere, also what the stream itself still holds."""
        if error.errno not in _READER_GONE:
            self.failure = self.failure or error
        nowhere = os.open(os.devnull, os.O_WRONLY)
        os.dup2(nowhere, self._stream.fileno())
        os.close(nowhere)


class StandardStreams:
    """While entered, standard output and standard error last. Main process of a command only."""

    def __enter__(self) -> StandardStreams:
        _open_closed_descriptors()
        self._before = sys.stdout, sys.stderr
        self.output = LastingStream(sys.stdout or open(1, "w", closefd=False))
        sys.stdout = self.output
        sys.stderr = LastingStream(sys.stderr or open(2, "w", closefd=False))
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        sys.stdout.flush()
        sys.stderr.flush()
        sys.stdout, sys.stderr = self._before


def _open_closed_descriptors() -> None:
    """Fill 0, 1 and 2 (``>&-``), or the next file to be opened would be taken for one of them."""
    for descriptor in range(3):
        try:
            os.fstat(descriptor)
        except OSError:
            os.open(os.devnull, os.O_RDWR)  # gets the lowest number that is free
