"""Small rank tables of every format, to be broken by tests, and a reader that finds one rule."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from launcher.rank_table.finding import Finding
from launcher.rank_table.reading import Reading, read_rank_table

Document = dict[str, Any]
SAMPLES = Path(__file__).parents[2] / "fixtures" / "rank_tables"


@pytest.fixture
def two_servers() -> Document:
    """Return version 1.0: two servers of two devices each, ranks 0, 1 and 2, 3."""
    return {
        "version": "1.0",
        "server_count": "2",
        "server_list": [
            {
                "server_id": f"10.0.0.{server}",
                "device": [
                    {
                        "device_id": str(device),
                        "device_ip": f"192.168.{server}.{device + 1}",
                        "rank_id": str(2 * server + device),
                    }
                    for device in range(2)
                ],
            }
            for server in range(2)
        ],
        "status": "completed",
    }


@pytest.fixture
def sample() -> Callable[[str], Document]:
    """Return a reader of the documents in tests/fixtures/rank_tables."""

    def read(name: str) -> Document:
        document: Document = json.loads((SAMPLES / f"{name}.json").read_text())
        return document

    return read


@pytest.fixture
def read() -> Callable[..., Reading]:
    """Return a reader of documents."""

    def read_document(document: object, chip: str | None = None) -> Reading:
        return read_rank_table(json.dumps(document, indent=1), chip)

    return read_document


@pytest.fixture
def finding_at(read: Callable[..., Reading]) -> Callable[..., Finding]:
    """Return what finds the one finding at a path of a document."""

    def find(document: object, path: str, chip: str | None = None) -> Finding:
        reading = read(document, chip)
        found = [finding for finding in reading.findings if finding.where == path]
        assert len(found) == 1, "\n".join(map(str, reading.findings))
        assert (reading.table is None) == bool(reading.errors)
        return found[0]

    return find
