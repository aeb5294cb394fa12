"""Say what is wrong with a rank table: the place, the rule, HCCL's own words, the fix."""

from __future__ import annotations

import re
from collections.abc import Hashable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, TypeVar

from launcher.errors import Problem
from launcher.rank_table.table import Device

T = TypeVar("T", bound=Hashable)


@dataclass(frozen=True)
class Finding(Problem):
    """A rule of the format that a table breaks; ``where`` is a JSON path."""

    # What HCCL's log has, its error code first if it gives one; "" where HCCL says nothing
    hccl: str = ""
    is_error: bool = True  # False: HCCL takes the table, or some of its devices do
    line: int = 0  # of the file; 0 where the file has no line for it

    def __str__(self) -> str:
        text = super().__str__()
        return f"line {self.line}: {text}" if self.line else text

    @property
    def code(self) -> str:
        """The code of HCCL's error, such as EI0014, or "" where HCCL gives none."""
        found = re.match(r"E[A-Z]\d{4}", self.hccl)
        return found[0] if found else ""

    def to_dict(self) -> dict[str, Any]:
        """Return the finding as JSON values."""
        return {
            "severity": "error" if self.is_error else "warning",
            "path": self.where,
            "line": self.line or None,
            "what": self.what,
            "fix": self.fix,
            "code": self.code or None,
            "hccl": self.hccl or None,
        }


def error(where: str, what: str, fix: str, hccl: str = "") -> Finding:
    """Return a finding for which HCCL refuses the table."""
    return Finding(where, what, fix, hccl)


def warning(where: str, what: str, fix: str, hccl: str = "") -> Finding:
    """Return a finding that leaves the table usable."""
    return Finding(where, what, fix, hccl, is_error=False)


@dataclass(frozen=True)
class Entry:
    """A device of a table, and where the document speaks of it."""

    device: Device
    path: str  # of the device
    rank_path: str  # of its rank_id; "" where HCCL numbers the ranks itself
    server_path: str  # of the server_id, or of what stands for it

    @property
    def addresses(self) -> tuple[str, ...]:
        """The addresses of the device's network port; HCCL drops a comma at the end."""
        text = self.device.device_ip.removesuffix(",")
        return tuple(text.split(",")) if text else ()


@dataclass(frozen=True)
class Draft:
    """What a format makes of a document, before the rules that all formats share."""

    entries: tuple[Entry, ...] = ()
    findings: tuple[Finding, ...] = ()  # of the rules that only this format has
    aliases: Mapping[str, tuple[str, ...]] = field(default_factory=dict)


def repeats(places: Iterable[tuple[str, T]]) -> Iterator[tuple[str, T, str]]:
    """Yield each path whose value an earlier path has, the value, and that earlier path."""
    first: dict[T, str] = {}
    for path, value in places:
        if first.setdefault(value, path) != path:
            yield path, value, first[value]
