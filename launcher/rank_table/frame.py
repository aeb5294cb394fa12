"""Check what all formats have at the top: version, status, size."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from launcher.rank_table.finding import Finding, error, warning

LONGEST_PATH = 4096
LARGEST = 40 * 10**6  # characters of a table of version 1.x; HCCL reads 1 GB of version 2.0


def version_finding(version: object, known: Sequence[str]) -> Finding:
    """Return what is wrong with a version that is not among the known ones."""
    what = "missing" if version is None else f"{version!r} is not read"
    fix = f"versions that are read: {', '.join(map(repr, known))} (a string)"
    if version is None:
        hccl = "json object has no property called group_list"
    elif isinstance(version, str):
        hccl = f"EI0014 value {version} of version, expected a valid version number"
    else:
        hccl = "EI0017 json object property value of Name[version] is not string!"
    return error("$.version", what, fix, hccl)


def frame_findings(document: Mapping[str, Any], version: str, size: int) -> Iterator[Finding]:
    """Yield what is wrong with the table as a whole: its status and its size."""
    status, optional = document.get("status"), version == "2.0"
    fix = "write 'completed' when the table is filled in"
    if "status" not in document:
        if not optional:
            hccl = "EI0017 json object has no property called status"
            yield error("$.status", "missing", fix, hccl)
    elif not isinstance(status, str):
        hccl = "EI0017 json object property value of Name[status] is not string!"
        yield error("$.status", f"{status!r} is not a string", fix, hccl)
    elif status != "completed":
        hccl = "Load ranktable file timeout[1800]s, after 30 minutes of waiting"
        say = warning if optional else error
        yield say("$.status", f"{status!r} is not a usable status", fix, hccl)
    if size > LARGEST and not optional:
        what, fix = f"{size} characters", f"HCCL reads {LARGEST} at most"
        yield error("$", what, fix, "EI0004 the rank table is too long")


def file_findings(path: str) -> Iterator[Finding]:
    """Yield what HCCL has against the name of the file, whatever is in it."""
    if not path.endswith(".json"):
        fix = "rename it; the launcher itself hands HCCL a copy with a name that it takes"
        yield error("", "the name does not end in .json", fix, f"EI0004 path {path} is not valid")
    elif path.find(".json") + len(".json") != len(path):
        fix = "rename the folder: HCCL looks at the first .json of the path"
        hccl = f"EI0004 path {path} is not a valid .json file"
        yield error("", "'.json' comes twice in the path", fix, hccl)
    if len(path) >= LONGEST_PATH:
        what, fix = f"the path has {len(path)} characters", f"fewer than {LONGEST_PATH} are read"
        yield error("", what, fix, "EI0004 path is not a valid real path")
