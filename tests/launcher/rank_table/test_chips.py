"""What one kind of chip refuses and another takes."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import pytest

from launcher.rank_table.finding import Finding
from launcher.rank_table.make import make_table
from launcher.rank_table.reading import Reading

Read = Callable[..., Reading]
SERVER = "$.server_list[0].server_id"


def one_server(device_ids: Sequence[int]) -> dict[str, Any]:
    addresses = {device_id: f"192.168.0.{device_id + 1}" for device_id in device_ids}
    return make_table("10.0.0.1", device_ids, addresses)


@pytest.mark.parametrize("device_ids", [(0, 1, 2, 3), (0, 2, 4, 6), (4, 5, 6, 7), range(8), (5,)])
def test_rings_of_a_910(device_ids: Sequence[int], read: Read) -> None:
    assert read(one_server(device_ids), chip="910").findings == ()


@pytest.mark.parametrize(
    ("device_ids", "word"),
    [
        ((0, 1, 2), "does not run 3 devices"),
        ((0, 1, 2, 4), "does not connect the devices 0, 1, 2, 4"),
        (range(1, 7), "does not run 6 devices"),
    ],
)
def test_what_forms_no_ring_is_refused_by_a_910_and_doubtful_on_an_unknown_chip(
    device_ids: Sequence[int], word: str, finding_at: Callable[..., Finding], read: Read
) -> None:
    document = one_server(device_ids)
    known, unknown = finding_at(document, SERVER, chip="910"), finding_at(document, SERVER)
    assert word in known.what and known.what == unknown.what
    assert (known.is_error, unknown.is_error) == (True, False)
    assert read(document, chip="a2").findings == ()


def test_a_server_with_sixteen_devices_is_no_910(read: Read) -> None:
    document = one_server(range(16))
    assert read(document).findings == ()
    assert read(document, chip="a3").findings == ()
    assert "the last one is 7" in str(read(document, chip="910").errors[0])


def test_no_server_has_a_device_16(read: Read) -> None:
    assert [finding.what for finding in read(one_server([16])).warnings] == [
        "device 16 of 10.0.0.1: the last one is 15"
    ]
    assert read(one_server([16]), chip="a2").table is None


@pytest.mark.parametrize(("chip", "usable"), [("910", False), ("310p", False), ("a2", True)])
def test_some_chips_need_addresses_on_one_server(chip: str, usable: bool, read: Read) -> None:
    document = make_table("10.0.0.1", range(8), {})
    assert (read(document, chip).table is not None) == usable


def test_a_duo_talks_inside_one_server(two_servers: dict[str, Any], read: Read) -> None:
    assert "inside one" in str(read(two_servers, chip="310p").errors[0])


@pytest.mark.parametrize(("chip", "usable"), [("910", False), ("a2", True), (None, True)])
def test_servers_with_different_numbers_of_devices(
    chip: str | None, usable: bool, two_servers: dict[str, Any], read: Read
) -> None:
    del two_servers["server_list"][1]["device"][1]
    reading = read(two_servers, chip)
    assert (reading.table is not None) == usable
    assert len(reading.findings) == 1


def test_version_2_fits_an_a5_alone(sample: Callable[[str], dict[str, Any]], read: Read) -> None:
    assert read(sample("rank_list_1x2"), chip="a5").findings == ()
    assert read(sample("rank_list_1x2"), chip="a2").table is None
