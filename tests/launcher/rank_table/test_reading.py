"""From a text to findings with lines, whatever the text is."""

from __future__ import annotations

import json

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from launcher.errors import RankTableError
from launcher.rank_table.reading import parse_rank_table, read_rank_table

WITHOUT_CLOCK = settings(deadline=None, suppress_health_check=[HealthCheck.too_slow])
TEXTS = st.text('{}[]:,"\\/ 01.azé\n', max_size=20)
KEYS = st.sampled_from(
    ["status", "server_list", "group_list", "rank_list", "server_group_list", "cluster_list"]
    + ["super_pod_list", "deploy_mode", "device", "level_list", "instance_list"]
)
JSON_VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | TEXTS,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(KEYS, inner, max_size=3),
    max_leaves=12,
)
VERSIONS = st.sampled_from(["1.0", "1.2", "2.0"])


def test_the_line_of_a_finding_is_that_of_its_value() -> None:
    text = """{
      "version": "1.0", "status": "completed",
      "server_list": [
        {"server_id": "a",
         "device": [
           {"device_id": "0", "rank_id": "0"},
           {"device_id": "1",
            "rank_id": 1}]}]}"""
    (finding,) = read_rank_table(text).findings
    assert (finding.where, finding.line) == ("$.server_list[0].device[1].rank_id", 8)
    assert str(finding).startswith("line 8: $.server_list[0].device[1].rank_id: 1 is not a string")


def test_the_line_of_a_missing_key_is_that_of_the_object() -> None:
    text = '{"version": "1.0", "status": "completed", "server_list": [\n{"server_id": "a"}]}'
    (finding,) = read_rank_table(text).findings
    assert (finding.where, finding.line) == ("$.server_list[0].device", 2)


def test_a_comment_is_refused_with_its_line() -> None:
    with pytest.raises(RankTableError, match="comments are not allowed") as caught:
        parse_rank_table('{"version": "1.0",\n // a comment\n}', "hccl.json")
    assert str(caught.value).startswith("hccl.json: line 2: ")


@pytest.mark.parametrize(
    "text", ["", "[]", "7", "{", '{"a": NaN}', "[" * 5000, '{"a": ' + "9" * 5000 + "}"]
)
def test_what_is_no_json_object_is_refused(text: str) -> None:
    reading = read_rank_table(text)
    assert reading.table is None
    assert [finding.code for finding in reading.findings] == ["EI0004"]


def test_a_key_that_comes_twice_is_told_once() -> None:
    text = '{"version": "1.0",\n"version": "1.1", "status": {"a": 1},\n"status": {"a": 2}}'
    warnings = read_rank_table(text).warnings
    assert [(finding.where, finding.line) for finding in warnings] == [
        ("$.version", 2),
        ("$.status", 3),
    ]


def test_the_name_that_a_missing_version_has_here_is_no_version() -> None:
    text = '{"version": "none (group_list)", "status": "completed", "group_list": []}'
    assert "is not read" in read_rank_table(text).findings[0].what


def test_a_table_that_is_not_filled_in_is_initializing_and_nothing_else() -> None:
    reading = read_rank_table('{"status": "initializing"}')
    assert reading.initializing
    assert [finding.where for finding in reading.findings] == ["$.status"]


def test_findings_come_in_the_order_of_the_file() -> None:
    text = json.dumps(
        {"rank_list": [{}], "rank_count": "1", "version": "2.0", "status": 3}, indent=1
    )
    lines = [finding.line for finding in read_rank_table(text).findings]
    assert len(lines) > 3 and lines == sorted(lines)


@WITHOUT_CLOCK
@given(st.dictionaries(KEYS, JSON_VALUES, max_size=4), VERSIONS | st.none())
def test_no_document_is_more_than_refused(
    document: dict[str, object], version: str | None
) -> None:
    if version is not None:
        document["version"] = version
    reading = read_rank_table(json.dumps(document))
    assert (reading.table is None) == bool(reading.errors)


@WITHOUT_CLOCK
@given(TEXTS)
def test_no_text_is_more_than_refused(text: str) -> None:
    assert read_rank_table(text).table is None
