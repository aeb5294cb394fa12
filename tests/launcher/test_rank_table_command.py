"""``rank-table``: what is printed, what is written, the exit code."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from launcher import rank_table_command
from launcher.cli import main
from launcher.host import Host
from launcher.rank_table import hccn

EXAMPLES = Path(__file__).parents[2] / "rank_tables"
HOST = Host(cpus=(0, 1, 2, 3), name="vm", addresses=("127.0.0.1", "10.0.0.2", "fe80::1"))


@pytest.fixture(autouse=True)
def somewhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Give the test a host without devices and a folder of its own."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(rank_table_command, "look_around", lambda: HOST)
    monkeypatch.setattr(hccn, "find_tool", lambda: None)
    monkeypatch.setattr(hccn, "HCCN_CONF", tmp_path / "none.conf")
    monkeypatch.delenv("ASCEND_RT_VISIBLE_DEVICES", raising=False)
    monkeypatch.delenv("SLURMD_NODENAME", raising=False)


def run(*arguments: str) -> int:
    return main(["rank-table", *arguments])


def write(name: str, **changes: Any) -> Path:
    path = Path(name).absolute()
    document = json.loads((EXAMPLES / "hccl_1x2.json").read_text()) | changes
    path.write_text(json.dumps(document, indent=1))
    return path


def make(name: str, server: str, first_address: str, devices: str = "0-1") -> None:
    flags = ("--server", server, "--device-ip-start", first_address, "--devices", devices)
    assert run("make", *flags, "--output", name) == 0


def test_a_good_table_is_usable(capsys: pytest.CaptureFixture[str]) -> None:
    path = write("hccl.json")
    assert run("check", str(path)) == 0
    assert capsys.readouterr().out == (
        f"{path}: usable, version 1.0, 1 server, 2 ranks; 0 errors, 0 warnings\n"
    )


def test_a_finding_has_place_rule_hccls_words_and_fix(capsys: pytest.CaptureFixture[str]) -> None:
    write("hccl.json", server_count="3")
    assert run("check", "hccl.json") == 2
    assert capsys.readouterr().out.splitlines() == [
        "hccl.json:3: error: $.server_count",
        "    3, but server_list holds 1",
        "    HCCL: EI0014 value 3 of server_count, expected 1",
        '    fix:  write "1", or add the missing servers',
        "hccl.json: not usable, version 1.0; 1 error, 0 warnings",
    ]


def test_warnings_leave_a_table_usable(capsys: pytest.CaptureFixture[str]) -> None:
    write("hccl.json", decode_device_list=[])
    assert run("check", "hccl.json") == 0
    assert "hccl.json: usable, version 1.0, 1 server, 2 ranks; 0 errors, 1 warning" in (
        capsys.readouterr().out
    )


def test_findings_are_json_where_json_is_asked_for(capsys: pytest.CaptureFixture[str]) -> None:
    write("hccl.json", server_count="3")
    assert run("check", "hccl.json", "--json") == 2
    report = json.loads(capsys.readouterr().out)
    assert (report["usable"], report["version"], report["ranks"]) == (False, "1.0", None)
    assert report["findings"] == [
        {
            "severity": "error",
            "path": "$.server_count",
            "line": 3,
            "what": "3, but server_list holds 1",
            "fix": 'write "1", or add the missing servers',
            "code": "EI0014",
            "hccl": "EI0014 value 3 of server_count, expected 1",
        }
    ]


def test_the_chip_decides_about_some_rules() -> None:
    make("hccl.json", "10.0.0.1", "192.168.0.1", "0-2")
    assert run("check", "hccl.json") == 0
    assert run("check", "hccl.json", "--chip", "910") == 2


@pytest.mark.parametrize("name", ["hccl.txt", "old.json.d/hccl.json"])
def test_a_name_that_hccl_does_not_read_is_an_error(
    name: str, capsys: pytest.CaptureFixture[str]
) -> None:
    Path(name).parent.mkdir(exist_ok=True)
    write(name)
    assert run("check", name) == 2
    assert "EI0004" in capsys.readouterr().out


def test_a_table_that_is_not_filled_in_is_not_usable(capsys: pytest.CaptureFixture[str]) -> None:
    write("hccl.json", status="initializing")
    assert run("check", "hccl.json") == 2
    assert "the table is not filled in yet" in capsys.readouterr().out


@pytest.mark.parametrize("limit", ["nan", "-1", "soon"])
def test_a_wait_that_would_never_be_over_is_refused(limit: str) -> None:
    write("hccl.json", status="initializing")
    with pytest.raises(SystemExit) as raised:
        run("check", "hccl.json", f"--wait={limit}")
    assert raised.value.code == 2


def test_a_file_that_is_not_there_is_an_error(capsys: pytest.CaptureFixture[str]) -> None:
    assert run("check", "none.json") == 2
    assert "none.json: No such file" in capsys.readouterr().err


def test_make_prints_the_table_and_nothing_else(capsys: pytest.CaptureFixture[str]) -> None:
    flags = ("--devices", "0-7", "--server", "10.0.0.1", "--device-ip-start", "192.168.1.1")
    assert run("make", *flags) == 0
    printed = capsys.readouterr()
    assert printed.out == (EXAMPLES / "hccl_1x8.json").read_text()
    assert printed.err == ""


def test_make_writes_a_file_that_is_complete(capsys: pytest.CaptureFixture[str]) -> None:
    make("hccl.json", "10.0.0.1", "192.168.1.1", "0-15")
    assert capsys.readouterr().out == "hccl.json: 1 server, 16 ranks\n"
    assert run("check", "hccl.json") == 0
    assert [path.name for path in Path().iterdir()] == ["hccl.json"]


def test_make_warns_of_a_name_that_hccl_does_not_read(capsys: pytest.CaptureFixture[str]) -> None:
    make("a.txt", "10.0.0.1", "192.168.1.1")
    assert "the name does not end in .json" in capsys.readouterr().err


def test_make_takes_the_only_address_of_the_host(capsys: pytest.CaptureFixture[str]) -> None:
    assert run("make", "--devices", "0", "--no-device-ip") == 0
    printed = capsys.readouterr()
    assert json.loads(printed.out)["server_list"][0]["server_id"] == "10.0.0.2"
    assert "1 of 1 devices have no device_ip" in printed.err


def test_make_does_not_choose_between_addresses(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    host = Host(cpus=(0, 1, 2, 3), addresses=("10.0.0.2", "172.17.0.1"))
    monkeypatch.setattr(rank_table_command, "look_around", lambda: host)
    assert run("make", "--devices", "0", "--no-device-ip") == 2
    assert "10.0.0.2, 172.17.0.1; name the one that" in capsys.readouterr().err


def test_make_reads_a_copy_of_hccn_conf(capsys: pytest.CaptureFixture[str]) -> None:
    Path("hccn.conf").write_text("address_0=192.168.1.1\naddress_1=192.168.1.2\n")
    assert run("make", "--hccn-conf", "hccn.conf", "--server", "10.0.0.1") == 0
    assert capsys.readouterr().out == (EXAMPLES / "hccl_1x2.json").read_text()


def test_make_refuses_what_hccl_would_refuse(capsys: pytest.CaptureFixture[str]) -> None:
    Path("hccn.conf").write_text("address_0=-.-.-.-\n")
    flags = ("--server", "10.0.0.1", "--output", "hccl.json")
    assert run("make", "--hccn-conf", "hccn.conf", *flags) == 2
    assert "'-.-.-.-' is no IP address" in capsys.readouterr().err
    assert not Path("hccl.json").exists()


def test_make_on_a_host_without_devices_asks_for_them(capsys: pytest.CaptureFixture[str]) -> None:
    assert run("make", "--no-device-ip") == 2
    assert "name them with --devices 0-7" in capsys.readouterr().err


def test_merge_makes_one_table(capsys: pytest.CaptureFixture[str]) -> None:
    make("b.json", "10.0.0.2", "192.168.2.1", "0-7")
    make("a.json", "10.0.0.1", "192.168.1.1", "0-7")
    capsys.readouterr()
    assert run("merge", "b.json", "a.json") == 0
    assert capsys.readouterr().out == (EXAMPLES / "hccl_2x8.json").read_text()


def test_merge_says_what_it_wrote_as_json(capsys: pytest.CaptureFixture[str]) -> None:
    make("a.json", "10.0.0.1", "192.168.1.1")
    make("b.json", "10.0.0.2", "192.168.2.1")
    capsys.readouterr()
    assert run("merge", "a.json", "b.json", "--output", "c.json", "--json") == 0
    written = {"file": "c.json", "servers": ["10.0.0.1", "10.0.0.2"], "ranks": 4}
    assert json.loads(capsys.readouterr().out) == written


@pytest.mark.parametrize(
    ("files", "word"),
    [
        (("a.json", "a.json"), "a.json: named twice"),
        (("a.json", "same.json"), "'10.0.0.1' is also a.json"),
        (("a.json", "broken.json"), "broken.json: line 3: $.server_count"),
        (("a.json", "rank_list.json"), "merge versions 1.0 and 1.2"),
    ],
)
def test_merge_refuses(
    files: tuple[str, ...], word: str, capsys: pytest.CaptureFixture[str]
) -> None:
    make("a.json", "10.0.0.1", "192.168.1.1")
    make("same.json", "10.0.0.1", "192.168.2.1")
    write("broken.json", server_count="3")
    samples = Path(__file__).parents[1] / "fixtures" / "rank_tables"
    Path("rank_list.json").write_text((samples / "rank_list_1x2.json").read_text())
    assert run("merge", *files) == 2
    assert word in capsys.readouterr().err


def test_merged_servers_need_the_addresses_that_one_could_do_without(
    capsys: pytest.CaptureFixture[str],
) -> None:
    for name, server in (("a.json", "10.0.0.1"), ("b.json", "10.0.0.2")):
        flags = ("--devices", "0-1", "--server", server, "--no-device-ip", "--output", name)
        assert run("make", *flags) == 0
    capsys.readouterr()
    assert run("merge", "a.json", "b.json") == 2
    assert "the new table: line 8: $.server_list[0].device[0].device_ip: missing" in (
        capsys.readouterr().err
    )


def test_a_host_is_told_which_server_it_is(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("ASCEND_RT_VISIBLE_DEVICES", "7,6,5,4,3,2,1,0")
    assert run("host", str(EXAMPLES / "hccl_2x8.json")) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[0] == (
        "this host is 10.0.0.2, server 1 of 2; ASCEND_RT_VISIBLE_DEVICES renumbers the devices"
    )
    assert lines[1] == "rank 8    device 0    DEVICE_ID=7"


def test_a_host_is_told_as_json(capsys: pytest.CaptureFixture[str]) -> None:
    assert run("host", str(EXAMPLES / "hccl_2x8.json"), "--node", "0", "--json") == 0
    told = json.loads(capsys.readouterr().out)
    assert told["server_id"] == "10.0.0.1"
    assert told["ranks"][7] == {"rank": 7, "device_id": 7, "number": 7}


def test_a_host_that_is_shown_too_few_devices_is_refused(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("ASCEND_RT_VISIBLE_DEVICES", "0,1")
    assert run("host", str(EXAMPLES / "hccl_2x8.json")) == 2
    assert "device 2 of the rank table is hidden by" in capsys.readouterr().err
