"""Tie the lives of processes together, so that nobody outlives whom it works for (Linux)."""

from __future__ import annotations

import ctypes
import os
import signal

_PR_SET_PDEATHSIG = 1
_PR_SET_CHILD_SUBREAPER = 36
_LIBC = ctypes.CDLL(None, use_errno=True)


def die_with(parent: int, number: int = signal.SIGKILL) -> None:
    """Let the kernel kill this process when its parent ends, however that ends.

    Args:
        number: of the signal to do it with.
    """
    _LIBC.prctl(_PR_SET_PDEATHSIG, number)
    if os.getppid() != parent:
        os._exit(1)  # it ended before the line above


def live_on() -> None:
    """Take ``die_with`` back: this process has a better way to notice."""
    _LIBC.prctl(_PR_SET_PDEATHSIG, 0)


def adopt_orphans() -> None:
    """Become the parent of whatever outlives a child of this process."""
    _LIBC.prctl(_PR_SET_CHILD_SUBREAPER, 1)
