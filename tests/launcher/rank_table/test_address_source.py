"""Where the addresses of devices come from."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from launcher.errors import HostError, InvalidInputError
from launcher.rank_table import hccn
from launcher.rank_table.address_source import AddressSource, find_addresses

CONF = """\
address_0=192.168.100.101
netmask_0=255.255.255.0
netdetect_0=192.168.100.1
 address_10 = 192.168.100.111
"""
OUTPUT = "ipaddr:192.168.100.101\nnetmask:255.255.255.0\nipaddr:192.168.100.102\nnetmask:x\n"
TOOL = """\
#!/bin/sh
test "$2" != 3 || { echo "Command execute failed" >&2; exit 1; }
echo "ipaddr:192.168.100.10$2"
echo "netmask:255.255.255.0"
"""


@pytest.fixture(autouse=True)
def host(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """Give the test a host without devices, and the folder in which it finds tools and files."""
    monkeypatch.setattr(hccn, "HCCN_CONF", tmp_path / "hccn.conf")
    monkeypatch.setattr(hccn, "TOOL_FOLDER", str(tmp_path))
    monkeypatch.setenv("PATH", "/usr/bin:/bin")
    yield tmp_path


def install_tool(folder: Path) -> None:
    (folder / "hccn_tool").write_text(TOOL)
    (folder / "hccn_tool").chmod(0o755)


def found(source: AddressSource, *devices: int) -> tuple[dict[int, str], list[str]]:
    said: list[str] = []
    return find_addresses(source, devices or None, [0, 1], said.append), said


def test_a_configuration_file_names_devices_by_number() -> None:
    assert hccn.parse_hccn_conf(CONF) == {0: "192.168.100.101", 10: "192.168.100.111"}


def test_the_tool_prints_one_address_for_each_call() -> None:
    assert hccn.parse_hccn_output(OUTPUT) == ["192.168.100.101", "192.168.100.102"]


def test_a_copy_of_the_configuration_file(host: Path) -> None:
    path = host / "copy.conf"
    path.write_text(CONF)
    assert found(AddressSource(conf=path))[0] == hccn.parse_hccn_conf(CONF)
    assert found(AddressSource(conf=path), 10)[0] == {10: "192.168.100.111"}
    with pytest.raises(InvalidInputError, match=r"copy\.conf: no address of device 1, 2"):
        found(AddressSource(conf=path), 0, 1, 2)


def test_an_empty_configuration_file_is_no_bare_key_error(host: Path) -> None:
    (host / "empty.conf").touch()
    with pytest.raises(InvalidInputError, match="no addresses"):
        found(AddressSource(conf=host / "empty.conf"))


def test_output_of_the_tool_is_in_the_order_of_the_devices(host: Path) -> None:
    path = host / "output.txt"
    path.write_text(OUTPUT)
    first, second = "192.168.100.101", "192.168.100.102"
    assert found(AddressSource(output=path))[0] == {0: first, 1: second}
    assert found(AddressSource(output=path), 4, 6)[0] == {4: first, 6: second}
    with pytest.raises(InvalidInputError, match="addresses: 2, devices: 1"):
        found(AddressSource(output=path), 4)


def test_addresses_are_counted_up_for_the_devices_of_the_host() -> None:
    assert found(AddressSource(start="10.0.0.9"))[0] == {0: "10.0.0.9", 1: "10.0.0.10"}


def test_without_a_word_the_tool_is_asked(host: Path) -> None:
    install_tool(host)
    assert found(AddressSource()) == ({0: "192.168.100.100", 1: "192.168.100.101"}, [])


def test_the_tool_is_believed_where_the_configuration_is_stale(host: Path) -> None:
    install_tool(host)
    (host / "hccn.conf").write_text("address_0=192.168.100.100\naddress_1=192.168.7.7\n")
    addresses, said = found(AddressSource())
    assert addresses[1] == "192.168.100.101"
    assert len(said) == 1 and "device 1 has 192.168.100.101" in said[0]
    assert "says 192.168.7.7" in said[0]


def test_a_tool_that_fails_is_quoted(host: Path) -> None:
    install_tool(host)
    with pytest.raises(HostError, match="-i 3 -ip -g` said: Command execute failed"):
        found(AddressSource(), 2, 3)


def test_without_the_tool_its_configuration_is_read(host: Path) -> None:
    (host / "hccn.conf").write_text(CONF)
    assert found(AddressSource(), 0)[0] == {0: "192.168.100.101"}


def test_a_host_that_knows_nothing_says_so() -> None:
    with pytest.raises(HostError, match="neither hccn_tool nor .*--no-device-ip"):
        found(AddressSource())
