"""Turn the text of a rank table into devices and findings, whatever its format. Opens no file."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from typing import Any, NoReturn

from launcher.errors import RankTableError
from launcher.rank_table import group_list, rank_list, server_list
from launcher.rank_table.addresses import check_addresses, check_server_ids
from launcher.rank_table.chips import check_chip
from launcher.rank_table.finding import Draft, Finding, error, warning
from launcher.rank_table.frame import frame_findings, version_finding
from launcher.rank_table.lines import duplicates, line_of, places
from launcher.rank_table.order import check_order, check_ranks
from launcher.rank_table.shape import (
    HcclWords,
    ShapeError,
    shape_findings,
    words_of_1,
    words_of_2,
)
from launcher.rank_table.table import RankTable

GROUP_LIST = "none (group_list)"  # what the version of a table without one is called
_NO_JSON = "EI0004 failed to parse rank table JSON content, the JSON format is incorrect"
INITIALIZING = "initializing"  # the status of a table that somebody is still filling in


@dataclass(frozen=True)
class Reading:
    """What a text turned out to be."""

    version: str  # "1.0", "1.2", "2.0", GROUP_LIST, or "" where that cannot be told
    table: RankTable | None  # None if there is an error among the findings
    findings: tuple[Finding, ...]  # in the order of the file
    initializing: bool = False  # nothing is wrong; the table only is not filled in yet

    @property
    def errors(self) -> tuple[Finding, ...]:
        return tuple(finding for finding in self.findings if finding.is_error)

    @property
    def warnings(self) -> tuple[Finding, ...]:
        return tuple(finding for finding in self.findings if not finding.is_error)


def parse_rank_table(text: str, source: str) -> RankTable:
    """Read a rank table; ``source`` names it in errors.

    Raises:
        RankTableError: with the line, the JSON path, the reason and the fix of each broken rule.
    """
    reading = read_rank_table(text)
    if reading.table is None:
        raise RankTableError(source, reading.errors)
    return reading.table


def read_rank_table(text: str, chip: str | None = None) -> Reading:
    """Return what a text holds and everything that is wrong with it.

    Args:
        chip: one of ``chips.CHIPS``, if it is known on which the table will be used.
    """
    try:
        document = json.loads(text, parse_constant=_refuse_constant)
    except json.JSONDecodeError as problem:
        what = f"{problem.msg} (column {problem.colno})"
        broken = error("$", what, "mend the JSON; // comments are not allowed", _NO_JSON)
        return Reading("", None, (replace(broken, line=problem.lineno),))
    except (ValueError, RecursionError) as problem:  # NaN, a number of 5000 digits, 2000 brackets
        why = "nested too deeply" if isinstance(problem, RecursionError) else problem
        return Reading("", None, (error("$", f"cannot be read: {why}", "mend it", _NO_JSON),))
    if not isinstance(document, dict):
        return Reading("", None, (error("$", "not a JSON object", "write {...}", _NO_JSON),))
    found = list(places(text))
    reading = _read(document, len(text), chip)
    twice = (
        warning(path, "the key is there twice", "drop one; the last one counts")
        for path in duplicates(path for path, _ in found)
    )
    lines = dict(found)
    findings = (
        replace(finding, line=line_of(finding.where, lines))
        for finding in (*reading.findings, *twice)
    )
    return replace(reading, findings=tuple(sorted(findings, key=lambda finding: finding.line)))


def _refuse_constant(name: str) -> NoReturn:
    raise ValueError(f"{name} is no JSON")


def _read(document: Mapping[str, Any], size: int, chip: str | None) -> Reading:
    if document.get("status") == INITIALIZING:
        fix = "start once it says 'completed'"
        hccl = "waiting for ranktable load complete... (for 30 minutes)"
        waiting = error("$.status", "the table is not filled in yet", fix, hccl)
        return Reading("", None, (waiting,), initializing=True)
    found = _format_of(document)
    if isinstance(found, Finding):
        return Reading("", None, (found,))
    version, form = found
    findings = [*frame_findings(document, version, size), *form.strangers(document)]
    try:
        draft = form.parse(document)
    except ShapeError as problem:
        return Reading(version, None, (*findings, *shape_findings(problem, form.words)))
    findings += _shared_findings(draft)
    if _refused(findings):
        return Reading(version, None, tuple(findings))
    devices = sorted((entry.device for entry in draft.entries), key=lambda device: device.rank)
    table = RankTable(tuple(devices), draft.aliases)
    paths = {entry.device.server_id: entry.server_path for entry in reversed(draft.entries)}
    findings += [*check_order(table, paths), *check_chip(table, version, chip, paths)]
    return Reading(version, None if _refused(findings) else table, tuple(findings))


def _format_of(document: Mapping[str, Any]) -> tuple[str, _Format] | Finding:
    """Return the version of a document and its format, or what is wrong with the version."""
    if "version" not in document and "group_list" in document:
        return GROUP_LIST, _GROUP_LIST
    version = document.get("version")
    form = _FORMATS.get(version) if isinstance(version, str) else None
    if form is None:
        return version_finding(version, list(_FORMATS))
    return str(version), form


def _refused(findings: Iterable[Finding]) -> bool:
    return any(finding.is_error for finding in findings)


def _shared_findings(draft: Draft) -> list[Finding]:
    findings = list(draft.findings)
    if draft.entries:
        findings += check_ranks(draft.entries)
        findings += check_addresses(draft.entries)
        findings += check_server_ids(draft.entries)
    return findings


def _no_strangers(document: Mapping[str, Any]) -> Iterator[Finding]:
    return iter(())


@dataclass(frozen=True)
class _Format:
    parse: Callable[[Mapping[str, Any]], Draft]
    strangers: Callable[[Mapping[str, Any]], Iterator[Finding]]
    words: HcclWords


_SERVER_LIST = _Format(server_list.parse, server_list.strangers, words_of_1)
_GROUP_LIST = _Format(group_list.parse, _no_strangers, words_of_1)
_FORMATS: Mapping[str, _Format] = {
    "1.0": _SERVER_LIST,
    "1.2": _SERVER_LIST,
    "2.0": _Format(rank_list.parse, rank_list.strangers, words_of_2),
}
