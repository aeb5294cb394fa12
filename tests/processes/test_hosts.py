"""One job on two hosts, each a network namespace with a launcher of its own."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import uuid
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import psutil
import pytest

from launcher.run_folder import RunFolder

HERE = Path(__file__).parent
KEY = "a key that only these two hosts know"
ADDRESSES = ("10.123.0.1", "10.123.0.2")

Living = Callable[[], list[psutil.Process]]
Until = Callable[[Callable[[], object]], None]


class Host:
    """A network namespace: processes in it see no other network than the one to its peer."""

    def __init__(self, name: str, address: str) -> None:
        self.name, self.address = name, address

    def ip(self, *words: str) -> None:
        subprocess.run(["ip", "-n", self.name, *words], check=True)

    def start(self, command: list[str], **options: Any) -> subprocess.Popen[str]:
        inside = ["ip", "netns", "exec", self.name, *command]
        pipe = subprocess.PIPE
        return subprocess.Popen(inside, stdout=pipe, stderr=subprocess.STDOUT, text=True, **options)


@pytest.fixture
def two_hosts() -> Iterator[tuple[Host, Host]]:
    """Return two hosts with a cable between them."""
    tag = uuid.uuid4().hex[:6]
    first, second = (Host(f"{end}-{tag}", at) for end, at in zip("ab", ADDRESSES))
    made = shutil.which("ip") and subprocess.run(["ip", "netns", "add", first.name])
    if not made or made.returncode:
        pytest.skip("network namespaces need iproute2 and root")
    try:
        subprocess.run(["ip", "netns", "add", second.name], check=True)
        first.ip("link", "add", "cable", "type", "veth", "peer", "cable", "netns", second.name)
        for host in (first, second):
            host.ip("addr", "add", f"{host.address}/24", "dev", "cable")
            host.ip("link", "set", "cable", "up")
            host.ip("link", "set", "lo", "up")
        yield first, second
    finally:
        for host in (first, second):
            subprocess.run(["ip", "netns", "delete", host.name])


@pytest.fixture
def table(tmp_path: Path) -> Path:
    """Return a rank table of both hosts: ranks 0 and 1 on the first, 2 and 3 on the second."""
    servers = [
        {
            "server_id": address,
            "device": [
                {
                    "device_id": str(device),
                    "rank_id": str(2 * number + device),
                    "device_ip": f"192.168.{number}.{device + 1}",
                }
                for device in range(2)
            ],
        }
        for number, address in enumerate(ADDRESSES)
    ]
    path = tmp_path / "hccl.json"
    document = {"version": "1.0", "server_count": "2", "server_list": servers}
    path.write_text(json.dumps(document | {"status": "completed"}))
    return path


@pytest.fixture
def start(
    table: Path, folder: RunFolder, mark: str, living: Living
) -> Callable[..., subprocess.Popen[str]]:
    """Return a function that starts the launcher on a host; see cluster.py."""

    def start(
        host: Host, behaviour: str = "Healthy", key: str = KEY, **job: Any
    ) -> subprocess.Popen[str]:
        job = {"engine": "hosts", "rank_table": str(table), "phase_timeout": 30.0} | job
        asked = {"behaviour": behaviour, "ranks": 4, "folder": str(folder.root), "job": job}
        return host.start(
            [sys.executable, str(HERE / "cluster.py"), json.dumps(asked)],
            env={
                "PATH": os.environ["PATH"],
                "PYTHONPATH": str(HERE.parents[1]),
                "PYTHONUNBUFFERED": "1",
                "LAUNCHER_CLUSTER_KEY": key,
                "TEST_MARK": mark,
            },
        )

    return start


Start = Callable[..., subprocess.Popen[str]]
Hosts = tuple[Host, Host]


def test_two_hosts_predict_together(
    two_hosts: Hosts, start: Start, folder: RunFolder, living: Living
) -> None:
    second, first = start(two_hosts[1]), start(two_hosts[0])
    said, also_said = first.communicate()[0], second.communicate()[0]
    assert (first.returncode, second.returncode) == (0, 0), said + also_said
    assert np.load(folder.predictions()).shape == (6, 3)
    assert "this host is 10.123.0.2; 10.123.0.1 leads" in also_said
    assert living() == []


def test_the_exit_code_of_a_rank_is_that_of_every_launcher(
    two_hosts: Hosts, start: Start, living: Living
) -> None:
    launchers = [start(host, "LastSegfaults") for host in two_hosts]
    said = [launcher.communicate()[0] for launcher in launchers]
    assert [launcher.returncode for launcher in launchers] == [139, 139], said
    assert "cause SIGSEGV of rank 3" in said[0]
    assert "the job ended with exit code 139; 10.123.0.1 says why" in said[1]
    assert living() == []


def test_a_host_that_is_cut_off_is_named_and_both_end(
    two_hosts: Hosts, start: Start, folder: RunFolder, living: Living, until: Until
) -> None:
    launchers = [start(host, "AllWait") for host in two_hosts]
    until(lambda: (folder.logs / "waiting").exists() and folder.log(3).exists())
    two_hosts[1].ip("link", "set", "cable", "down")
    said = [launcher.communicate()[0] for launcher in launchers]
    assert [launcher.returncode for launcher in launchers] == [1, 1], said
    assert "cause HostLost of rank None: 10.123.0.2 is gone, and with it ranks 2-3" in said[0]
    assert "the launcher of rank 0 at 10.123.0.1 is gone; the ranks here are ended" in said[1]
    assert living() == []


def test_a_launcher_that_is_told_to_end_ends_the_job_on_every_host(
    two_hosts: Hosts, start: Start, folder: RunFolder, living: Living, until: Until
) -> None:
    first, second = [start(host, "AllWait") for host in two_hosts]
    until((folder.logs / "waiting").exists)
    second.terminate()
    said = [first.communicate()[0], second.communicate()[0]]
    assert (first.returncode, second.returncode) == (143, 143), said
    assert "10.123.0.2: the launcher there was told to end by SIGTERM" in said[0]
    assert living() == []


def test_the_hosts_of_a_launcher_that_is_killed_end_their_ranks(
    two_hosts: Hosts, start: Start, folder: RunFolder, living: Living, until: Until
) -> None:
    first, second = [start(host, "AllWait") for host in two_hosts]
    until((folder.logs / "waiting").exists)
    first.kill()
    assert "the launcher of rank 0 at 10.123.0.1 is gone" in second.communicate()[0]
    assert second.returncode == 1
    until(lambda: living() == [])
    first.communicate()


def test_a_host_with_another_key_is_turned_away(two_hosts: Hosts, start: Start) -> None:
    first, second = start(two_hosts[0]), start(two_hosts[1], key="some other key of some length")
    said = second.communicate()[0]
    assert second.returncode == 2
    assert "10.123.0.1 hangs up: it does not know our key, or has just ended" in said
    first.terminate()
    first.communicate()


def test_another_job_on_another_host_is_refused_by_both(two_hosts: Hosts, start: Start) -> None:
    first, second = start(two_hosts[0]), start(two_hosts[1], network="other:f")
    said = first.communicate()[0] + second.communicate()[0]
    assert (first.returncode, second.returncode) == (2, 2), said
    assert "10.123.0.2 was started with another network: other:f there, n:f here" in said


def test_simulated_ranks_of_several_hosts_are_sent_to_mpirun(
    two_hosts: Hosts, table: Path, documented: Callable[[str], str], mark: str, living: Living
) -> None:
    digits = HERE.parents[1] / "examples" / "digits" / "job.yaml"
    command = documented("python -m launcher job.yaml --engine hosts").split()
    command = [{"job.yaml": str(digits), "python": sys.executable}.get(w, w) for w in command]
    environment = {
        "PATH": os.environ["PATH"],
        "PYTHONPATH": str(HERE.parents[1]),
        "LAUNCHER_CLUSTER_KEY": KEY,
        "TEST_MARK": mark,
    }
    launchers = [
        host.start(command, env=environment, cwd=table.parent) for host in two_hosts
    ]
    said = [launcher.communicate()[0] for launcher in launchers]
    assert [launcher.returncode for launcher in launchers] == [2, 2], said
    for words in said:
        assert "reach each other through MPI only; start them with --engine mpi, mpirun" in words
    assert living() == []


def test_a_port_that_is_taken_is_named(two_hosts: Hosts, start: Start) -> None:
    listen = "import socket; s = socket.create_server(('', 29177)); print(flush=True); input()"
    other = two_hosts[0].start([sys.executable, "-c", listen], stdin=subprocess.PIPE)
    assert other.stdout is not None
    other.stdout.readline()
    first = start(two_hosts[0])
    said = first.communicate()[0]
    assert first.returncode == 2
    assert "port 29177 is taken by another process; name another one with --port" in said
    other.communicate("\n")
