"""Find the line of every value in a JSON text; what the values mean is not known here."""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass

_TOKEN = re.compile(r'"(?:[^"\\]|\\.)*"|[{}\[\],:]|[^\s{}\[\],:"]+')


@dataclass
class _Container:
    path: str
    index: int | None  # of the element that comes next; None in an object


def places(text: str) -> Iterator[tuple[str, int]]:
    """Yield the path and the line of each value of a JSON text, in the order of the text.

    Paths are those of ``launcher.validation``: ``$.server_list[0].device``. A key that an
    object holds twice is yielded twice. The text must be valid JSON.
    """
    containers: list[_Container] = []
    path, key_is_next = "$", False
    for token, line in _tokens(text):
        match token:
            case "{" | "[":
                yield path, line
                containers.append(_Container(path, 0 if token == "[" else None))
                key_is_next = token == "{"
                path = f"{path}[0]"  # in an object, the key that comes next overwrites it
            case "}" | "]":
                containers.pop()
                key_is_next = False
            case ",":
                container = containers[-1]
                key_is_next = container.index is None
                if container.index is not None:
                    container.index += 1
                    path = f"{container.path}[{container.index}]"
            case ":":
                pass
            case _ if key_is_next:
                path, key_is_next = f"{containers[-1].path}.{json.loads(token)}", False
            case _:
                yield path, line


def line_of(path: str, lines: Mapping[str, int]) -> int:
    """Return the line of a value, or of the nearest thing around it if it is not there; 0: none."""
    while path and path not in lines:
        path = parent(path)
    return lines.get(path, 0)


def duplicates(paths: Iterable[str]) -> Iterator[str]:
    """Yield each path that comes again, but not the ones inside of it."""
    seen: set[str] = set()
    twice: set[str] = set()
    for path in paths:
        if path in seen:
            twice.add(path)
            if parent(path) not in twice:
                yield path
        seen.add(path)


def parent(path: str) -> str:
    """Return the path of what a value lies in; "" for the whole document."""
    return path[: max(path.rfind("."), path.rfind("["), 0)]


def _tokens(text: str) -> Iterator[tuple[str, int]]:
    line, counted = 1, 0
    for found in _TOKEN.finditer(text):
        line += text.count("\n", counted, found.start())
        counted = found.start()
        yield found[0], line
