"""Mapped or read, a file gives the same bytes, and one that changes meanwhile gives an error."""

from __future__ import annotations

import ctypes
import errno
import os
import signal
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from workers.resharding import file_bytes
from workers.resharding.checkpoint import open_checkpoint
from workers.resharding.checkpoint_file import read_index, write_checkpoint
from workers.resharding.errors import FileChangedError, UnreadableFileError
from workers.resharding.execute import execute
from workers.resharding.file_bytes import open_bytes
from workers.resharding.layout import Layout
from workers.resharding.local_files import is_local, parse_mounts
from workers.resharding.plan import plan_rank
from workers.resharding.torn_mapping import guarded

Want = Callable[..., Any]
CUBE = np.arange(6 * 7 * 40, dtype=np.int64).reshape(6, 7, 40)


@pytest.fixture
def remote(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let every file be one of a network file system."""
    monkeypatch.setattr(file_bytes, "is_local", lambda path: False)


@pytest.mark.parametrize("dim", [0, 1, 2])
@pytest.mark.parametrize("dense_nbytes", [1, 200, 2000, 1 << 20])
@pytest.mark.parametrize("most_nbytes", [8, 200, 3000, 1 << 20])
def test_what_is_read_piece_by_piece_is_what_was_written(
    most_nbytes: int,
    dense_nbytes: int,
    dim: int,
    remote: None,
    tmp_path: Path,
    want: Want,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(file_bytes._ReadBytes, "most_nbytes", most_nbytes)
    monkeypatch.setattr(file_bytes._ReadBytes, "dense_nbytes", dense_nbytes)
    write_checkpoint(tmp_path / "c.ckpt", {"cube": CUBE, "scalar": np.array(5.0)})
    parts = CUBE.shape[dim] if dim < 2 else 2
    layout = Layout((parts,), tuple((0,) if axis == dim else () for axis in range(3)))
    wanted = {
        "cube": want(CUBE.shape, layout, "Int64"),
        "scalar": want((), Layout((parts,), ()), "Float64"),
    }
    loaded = execute(plan_rank(open_checkpoint(str(tmp_path / "c.ckpt")), wanted, rank=1))
    np.testing.assert_array_equal(loaded["cube"], np.split(CUBE, parts, dim)[1])
    assert loaded["scalar"] == 5


def test_rows_far_apart_are_read_without_what_lies_between(
    remote: None, tmp_path: Path, want: Want, monkeypatch: pytest.MonkeyPatch
) -> None:
    matrix = np.zeros((4, 16384), np.float64)  # a quarter of a row is 32 KiB
    write_checkpoint(tmp_path / "c.ckpt", {"w": matrix})
    spans = []
    real = file_bytes._ReadBytes.view
    monkeypatch.setattr(
        file_bytes._ReadBytes,
        "view",
        lambda self, start, stop, **_: (spans.append(stop - start), real(self, start, stop))[1],
    )
    layout = Layout((4,), ((), (0,)))
    wanted = {"w": want(matrix.shape, layout, "Float64")}
    execute(plan_rank(open_checkpoint(str(tmp_path / "c.ckpt")), wanted, rank=2))
    assert spans == [32768] * 4


@pytest.mark.parametrize("local", [True, False])
def test_a_file_that_shrinks_while_it_is_read_ends_in_an_error(
    local: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(file_bytes, "is_local", lambda path: local)
    path = tmp_path / "c.ckpt"
    write_checkpoint(path, {"w": np.ones(1 << 18, np.float32)})
    index = read_index(path)
    before = signal.getsignal(signal.SIGBUS)
    with pytest.raises(FileChangedError, match="c.ckpt has changed"), open_bytes(index) as file:
        assert bytes(file.view(4096, 4104))[4:] != bytes(4)
        os.truncate(path, 8192)
        lost = bytes(file.view(1 << 19, (1 << 19) + 64))  # without the guard: SIGBUS
        assert lost == bytes(64)
    assert signal.getsignal(signal.SIGBUS) == before


def test_files_that_shrink_under_several_threads_end_in_an_error_in_each(tmp_path: Path) -> None:
    together = threading.Barrier(4, timeout=60)

    def shrink(number: int) -> bytes:
        path = tmp_path / f"{number}.ckpt"
        write_checkpoint(path, {"w": np.ones(1 << 18, np.float32)})
        with pytest.raises(FileChangedError, match=f"{number}.ckpt"):
            with open_bytes(read_index(path)) as file:
                os.truncate(path, 8192)
                together.wait()
                lost = np.copy(np.frombuffer(file.view(1 << 19, 1 << 20), np.uint8))
        return lost.tobytes()

    with ThreadPoolExecutor(4) as pool:
        assert list(pool.map(shrink, range(4))) == [bytes(1 << 19)] * 4


def test_a_mapping_is_guarded_only_as_long_as_it_is_used() -> None:
    memory = ctypes.create_string_buffer(64)
    with guarded(ctypes.addressof(memory), 64) as mapping:
        with guarded(ctypes.addressof(memory), 64):
            pass
    assert not mapping.torn


@pytest.mark.parametrize("change", ["append", "touch", "replace", "remove"])
def test_a_file_of_another_time_is_refused(change: str, tmp_path: Path) -> None:
    path = tmp_path / "c.ckpt"
    write_checkpoint(path, {"w": np.ones(4, np.float32)})
    index = read_index(path)
    match change:
        case "append":
            path.write_bytes(path.read_bytes() + b"x")
        case "touch":
            os.utime(path, ns=(0, 0))
        case "replace":
            path.rename(tmp_path / "old")
            path.write_bytes((tmp_path / "old").read_bytes())
        case "remove":
            path.unlink()
    with pytest.raises(FileChangedError), open_bytes(index):
        pass


def test_a_file_that_is_written_while_it_is_read_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "c.ckpt"
    write_checkpoint(path, {"w": np.ones(4, np.float32)})
    index = read_index(path)
    with pytest.raises(FileChangedError), open_bytes(index) as file:
        file.view(0, 8)
        os.utime(path, ns=(1, 1))


MOUNTS = parse_mounts(
    "22 1 8:1 / / rw,relatime shared:1 - ext4 /dev/sda1 rw\n"
    "35 22 0:31 / /data rw,relatime shared:9 master:2 - nfs4 server:/data rw\n"
    "36 35 0:32 / /data/with\\040space rw - tmpfs tmpfs rw\n"
    "a line of another kind\n"
)


@pytest.mark.parametrize(
    ("path", "local"),
    [
        ("/home/c.ckpt", True),
        ("/data/c.ckpt", False),
        ("/database/c.ckpt", True),
        ("/data/with space/c.ckpt", True),
    ],
)
def test_a_file_is_local_if_its_file_system_is_known_to_be(path: str, local: bool) -> None:
    assert is_local(Path(path), MOUNTS) is local
    assert is_local(Path(path), ()) is False


def test_short_reads_are_continued(
    remote: None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_checkpoint(tmp_path / "c.ckpt", {"w": np.arange(100, dtype=np.uint8)})
    index, real = read_index(tmp_path / "c.ckpt"), os.preadv
    monkeypatch.setattr(os, "preadv", lambda fd, into, at: real(fd, [into[0][:7]], at))
    with open_bytes(index) as file:
        offset = index.tensors["w"].chunks[0].offset
        assert bytes(file.view(offset, offset + 100)) == bytes(range(100))


@pytest.mark.parametrize("code", [errno.EIO, errno.ESTALE])
def test_a_disk_or_server_that_fails_is_told_with_the_file(
    code: int, remote: None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_checkpoint(tmp_path / "c.ckpt", {"w": np.ones(4, np.float32)})
    index = read_index(tmp_path / "c.ckpt")

    def fail(*_: object) -> int:
        raise OSError(code, os.strerror(code))

    monkeypatch.setattr(os, "preadv", fail)
    with pytest.raises(UnreadableFileError, match=f"c.ckpt: cannot be read: {os.strerror(code)}"):
        with open_bytes(index) as file:
            file.view(0, 8)
