"""A file that appears complete, or not at all."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from workers.resharding.atomic import atomic_file


@pytest.fixture(params=[0o077, 0o022, 0o002])
def umask(request: pytest.FixtureRequest) -> Iterator[int]:
    before = os.umask(request.param)
    yield request.param
    os.umask(before)


def test_the_umask_says_who_may_read_it(umask: int, tmp_path: Path) -> None:
    with atomic_file(tmp_path / "weights") as file:
        file.write(b"all of it")
    assert (tmp_path / "weights").stat().st_mode & 0o777 == 0o666 & ~umask
    assert (tmp_path / "weights").read_bytes() == b"all of it"


def test_nothing_is_left_of_a_file_that_was_not_finished(tmp_path: Path) -> None:
    (tmp_path / "weights").write_bytes(b"earlier ones")
    with pytest.raises(KeyboardInterrupt):
        with atomic_file(tmp_path / "weights") as file:
            file.write(b"a part")
            raise KeyboardInterrupt
    assert os.listdir(tmp_path) == ["weights"]
    assert (tmp_path / "weights").read_bytes() == b"earlier ones"
