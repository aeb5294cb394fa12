"""Decide whether a file lies on this host, where mapping it is as good as memory."""

from __future__ import annotations

import os
import re
from collections.abc import Sequence
from functools import lru_cache
from pathlib import Path

# A network file system can fail in the middle of a copy, and a mapped file cannot say so.
_LOCAL = frozenset(
    "bcachefs btrfs erofs exfat ext2 ext3 ext4 f2fs overlay ramfs squashfs tmpfs vfat xfs"
    " zfs".split()
)
_OCTAL = re.compile(r"\\([0-7]{3})")  # how mountinfo writes a space in a path


def is_local(path: Path, mounts: Sequence[tuple[str, str]] | None = None) -> bool:
    """Return whether the file system of ``path`` is known to be one of this host.

    Args:
        mounts: (where, type) of every file system; those of this process if not given.
    """
    real = os.path.realpath(path)
    best, local = -1, False
    for where, kind in _mounts() if mounts is None else mounts:
        inside = real == where or real.startswith(where.rstrip("/") + "/")
        if inside and len(where) >= best:  # of two at one place, the later one hides the other
            best, local = len(where), kind in _LOCAL
    return local


def parse_mounts(text: str) -> tuple[tuple[str, str], ...]:
    """Return (where, type) of every line of a mountinfo file."""
    mounts = []
    for line in text.splitlines():
        before, separator, after = line.partition(" - ")
        if separator and len(before.split()) > 4 and after.split():
            where = _OCTAL.sub(lambda match: chr(int(match[1], 8)), before.split()[4])
            mounts.append((where, after.split()[0]))
    return tuple(mounts)


@lru_cache(maxsize=1)
def _mounts() -> tuple[tuple[str, str], ...]:
    try:
        return parse_mounts(Path("/proc/self/mountinfo").read_text(encoding="utf-8"))
    except OSError:
        return ()  # then nothing is known to be local
