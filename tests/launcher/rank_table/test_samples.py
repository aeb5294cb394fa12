"""The tables that public repositories hold, as their writers made them: the good, then the bad."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from launcher.rank_table.finding import Finding
from launcher.rank_table.reading import Reading

Table = dict[str, Any]
Read = Callable[..., Reading]
Sample = Callable[[str], Table]
FindingAt = Callable[..., Finding]


@pytest.mark.parametrize(
    ("name", "version", "servers", "ranks"),
    [
        ("hcomm_1x8", "1.0", 1, 8),
        ("mindspore_1x8", "1.0", 1, 8),
        ("lab_1x2", "none (group_list)", 1, 2),
        ("cloud_2x2", "none (group_list)", 2, 4),
        ("super_pods_4x4", "1.2", 4, 16),
        ("rank_list_1x2", "2.0", 1, 2),
        ("cross_cluster_2x2", "1.0", 2, 4),
        ("mindie_1x2", "1.0", 1, 2),
        ("clusterd_global", "1.0", 1, 2),
    ],
)
def test_a_good_sample_is_read(
    name: str, version: str, servers: int, ranks: int, sample: Sample, read: Read
) -> None:
    reading = read(sample(name))
    assert reading.table is not None, reading.errors
    assert (reading.version, len(reading.table.servers)) == (version, servers)
    assert reading.table.rank_size == ranks


def test_a_server_may_be_known_by_its_loopback_address_with_a_warning(
    sample: Sample, finding_at: FindingAt
) -> None:
    finding = finding_at(sample("mindspore_1x8"), "$.server_list[0].server_id")
    assert not finding.is_error


def test_a_draft_of_version_2_is_told_the_keys_of_today(sample: Sample, read: Read) -> None:
    reading = read(sample("rank_list_draft"))
    assert reading.table is None
    fixes = {finding.where: finding.fix for finding in reading.findings}
    assert fixes["$.rank_count"] == "write 2 without quotes"
    assert fixes["$.rank_list[0].level_list[0].level"] == "write net_layer"
    assert fixes["$.rank_list[1].level_list[0].net_instance_id"] == "add it"


def test_an_npu_without_an_address_is_told_apart_from_a_typing_error(
    sample: Sample, finding_at: FindingAt
) -> None:
    document = sample("mindie_1x2")
    document["server_list"][0]["device"][1]["device_ip"] = "-.-.-.-"
    finding = finding_at(document, "$.server_list[0].device[1].device_ip")
    assert finding.code == "EI0014"
    assert "the tool that made the table found none" in finding.fix


def test_an_old_merge_wrote_ranks_as_numbers(sample: Sample, read: Read) -> None:
    document = sample("hcomm_1x8")
    for device in document["server_list"][0]["device"]:
        device["rank_id"] = int(device["rank_id"])
    assert {finding.code for finding in read(document).errors} == {"EI0017"}


def test_a_table_of_version_1_does_not_fit_an_a5(sample: Sample, finding_at: FindingAt) -> None:
    finding = finding_at(sample("hcomm_1x8"), "$.version", chip="a5")
    assert finding.code == "EI0014"
    assert finding.fix == "an Ascend 950 reads version 2.0, all others read 1.0"


def test_the_documents_own_case_of_an_empty_super_device_id(
    sample: Sample, finding_at: FindingAt
) -> None:
    document = sample("super_pods_4x4")
    document["server_list"][0]["device"][0]["super_device_id"] = ""
    finding = finding_at(document, "$.server_list[0].device[0].super_device_id")
    assert finding.hccl == "EI0014 super_device_id[] is invalid"
