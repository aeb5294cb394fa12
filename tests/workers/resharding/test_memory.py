"""Memory: what cannot fit is refused before anything is read."""

from __future__ import annotations

from pathlib import Path

import pytest

from workers.resharding import memory
from workers.resharding.errors import NoMemoryError
from workers.resharding.memory import available_nbytes, require_memory
from workers.resharding.plan import LoadPlan, SlicePlan

PLAN = LoadPlan(3, (SlicePlan("w", "Float32", (1024, 1024), ()),), {})


@pytest.fixture
def host(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A host with 5000 kB to give."""
    (tmp_path / "meminfo").write_text("MemTotal: 9000 kB\nMemAvailable:   5000 kB\n")
    monkeypatch.setattr(memory, "_MEMINFO", tmp_path / "meminfo")
    monkeypatch.setattr(memory, "_CGROUP_LIMIT", tmp_path / "memory.max")
    return tmp_path


def test_slices_that_fit_are_loaded(host: Path) -> None:
    assert PLAN.nbytes == 4 << 20
    require_memory(PLAN)


def test_slices_that_are_larger_than_the_memory_are_refused(host: Path) -> None:
    (host / "meminfo").write_text("MemAvailable: 4000 kB\n")
    with pytest.raises(NoMemoryError, match="of rank 3 take 4,194,304 bytes, 4,096,000 are avail"):
        require_memory(PLAN)


@pytest.mark.parametrize("limit, available", [("1048576\n", 1 << 20), ("max\n", 5000 << 10)])
def test_the_limit_of_a_container_counts(host: Path, limit: str, available: int) -> None:
    (host / "memory.max").write_text(limit)
    assert available_nbytes() == available


def test_a_system_that_does_not_tell_is_trusted(host: Path) -> None:
    (host / "meminfo").unlink()
    assert available_nbytes() is None
    require_memory(PLAN)
