from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from workers.resharding.remote import patience
from workers.resharding.remote.cache import Cache

BODY = bytes(range(1, 251)) * 4096  # 1,024,000 bytes, none of them zero


@pytest.fixture
def body(server: Any) -> bytes:
    """The content of net.bin on the server."""
    (server.folder / "net.bin").write_bytes(BODY)
    return BODY


@pytest.fixture
def cache(tmp_path: Path) -> Cache:
    return Cache(tmp_path / "cache", 64 << 20)


@pytest.fixture(autouse=True)
def no_waiting(monkeypatch: pytest.MonkeyPatch) -> None:
    """Try again at once."""
    monkeypatch.setattr(patience, "FIRST_S", 0.0)
    monkeypatch.setattr(patience, "LONGEST_S", 0.0)
