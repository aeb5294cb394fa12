"""The line of every value of a JSON text."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from launcher.rank_table.lines import duplicates, line_of, places

WITHOUT_CLOCK = settings(deadline=None, suppress_health_check=[HealthCheck.too_slow])
TEXTS = st.text('{}[]:,"\\/ 01.azé\n', max_size=8)
VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | TEXTS,
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(TEXTS, inner, max_size=4),
)


def test_places_of_a_small_text() -> None:
    text = '{"a": [1,\n {"b c": "x\\"}"}],\n "d": {}, "e":\n[]}'
    assert list(places(text)) == [
        ("$", 1),
        ("$.a", 1),
        ("$.a[0]", 1),
        ("$.a[1]", 2),
        ("$.a[1].b c", 2),
        ("$.d", 3),
        ("$.e", 4),
    ]


def paths_of(value: Any, path: str = "$") -> Iterator[str]:
    yield path
    if isinstance(value, list):
        for index, element in enumerate(value):
            yield from paths_of(element, f"{path}[{index}]")
    if isinstance(value, dict):
        for key, element in value.items():
            yield from paths_of(element, f"{path}.{key}")


@WITHOUT_CLOCK
@given(VALUES, st.sampled_from([None, 0, 2]))
def test_every_value_has_a_place(value: Any, indent: int | None) -> None:
    text = json.dumps(value, indent=indent)
    assert [path for path, _ in places(text)] == list(paths_of(value))


def test_what_is_not_there_has_the_line_of_what_it_lies_in() -> None:
    lines = {"$": 1, "$.a": 2, "$.a[0]": 3}
    assert line_of("$.a[0].b", lines) == 3
    assert line_of("$.a[7].b.c", lines) == 2
    assert line_of("$.z", lines) == 1
    assert line_of("", lines) == 0


def test_of_values_that_come_twice_only_the_outermost_is_told() -> None:
    assert list(duplicates(["$", "$.a", "$.a[0]", "$.a", "$.a[0]", "$.b"])) == ["$.a"]
