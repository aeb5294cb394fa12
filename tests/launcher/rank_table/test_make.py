"""New tables of one server."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence

import pytest

from launcher.errors import InvalidInputError
from launcher.rank_table.hccn import count_up
from launcher.rank_table.make import make_table, parse_devices, to_text
from launcher.rank_table.reading import Reading


@pytest.mark.parametrize(
    ("text", "devices"),
    [
        ("0-7", range(8)),
        ("0-15", range(16)),
        ("5", [5]),
        ("0,2,4-6", [0, 2, 4, 5, 6]),
        (" 4 , 0-1", [4, 0, 1]),
        ("[0,8)", range(8)),  # as hccl_tools.py has it, where a blank was a ValueError
        ("[0, 16)", range(16)),  # and this was device 0 alone
        ("[3,5)", [3, 4]),  # and this was refused
    ],
)
def test_devices_of_a_text(text: str, devices: Sequence[int]) -> None:
    assert parse_devices(text) == tuple(devices)


@pytest.mark.parametrize(
    ("text", "word"),
    [
        ("", "'' is no device"),
        ("0-", "'0-' is no device"),
        ("0:8", "'0:8' is no device"),
        ("[0,8]", "is no device"),
        ("99999", "is no device"),
        ("7-0", "the lower number comes first"),
        ("[8,8)", "names no device"),
        ("0-3,2", "names a device twice"),
    ],
)
def test_a_text_that_is_no_list_of_devices_is_refused(text: str, word: str) -> None:
    with pytest.raises(InvalidInputError, match="--devices: ") as caught:
        parse_devices(text)
    assert word in str(caught.value)


@pytest.mark.parametrize("size", [1, 8, 16])
def test_a_new_table_has_no_flaw(size: int, read: Callable[..., Reading]) -> None:
    addresses = count_up("192.168.100.250", range(size))
    reading = read(make_table("10.0.0.1", range(size), addresses, "10.0.0.1"))
    assert reading.findings == ()
    assert reading.table is not None and reading.table.rank_size == size
    assert reading.table.devices[-1].device_ip == addresses[size - 1]


def test_ranks_are_counted_in_the_order_of_the_devices(read: Callable[..., Reading]) -> None:
    table = read(make_table("a", (4, 6), count_up("fd00::9", (4, 6)))).table
    assert table is not None
    assert [(device.rank, device.device_id) for device in table.devices] == [(0, 4), (1, 6)]
    assert [device.device_ip for device in table.devices] == ["fd00::9", "fd00::a"]


@pytest.mark.parametrize("start", ["192.168.0", "255.255.255.255"])
def test_addresses_that_cannot_be_counted_up_are_refused(start: str) -> None:
    with pytest.raises(InvalidInputError, match="--device-ip-start"):
        count_up(start, (0, 1))


def test_the_text_of_a_table_has_a_line_for_each_device() -> None:
    document = make_table('a "b" [c] {d}', (0, 1), {})
    text = to_text(document)
    assert json.loads(text) == document
    assert '        {"device_id": "1", "rank_id": "1"}\n' in text
