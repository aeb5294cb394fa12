"""Say what all errors of the re-sharding core have in common."""

from __future__ import annotations

from collections.abc import Sequence


class ReshardError(Exception):
    """The wanted slices cannot be made from what was saved. ``exit_code`` is for a process."""

    exit_code = 2


def listed(things: Sequence[object], most: int = 8) -> str:
    """Return the first of some things, and how many more there are."""
    more = f" and {len(things) - most} more" if len(things) > most else ""
    return ", ".join(map(str, things[:most])) + more
