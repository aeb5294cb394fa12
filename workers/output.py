"""Write to the log of a rank, whatever has become of ``sys.stdout`` and ``sys.stderr``.

The user's code may have closed them, or put None or an object that can only write in their place;
the disk of the log may be full.
None of that may cost a rank its last word, or its exit code.
"""

from __future__ import annotations

import sys
import traceback
from contextlib import suppress

_STDERR = 2  # the log; ``sys.stderr`` may be something else by now


def flush_output() -> None:
    """Let out what the standard streams hold, as far as they can."""
    for stream in (sys.stdout, sys.stderr, sys.__stdout__, sys.__stderr__):
        with suppress(Exception):  # an object of the user's may raise anything
            stream.flush()  # type: ignore[union-attr]


def log_error(error: BaseException) -> None:
    """Write the traceback of an error."""
    flush_output()
    with suppress(OSError):
        with open(_STDERR, "w", errors="backslashreplace", closefd=False) as log:
            traceback.print_exception(error, file=log)
