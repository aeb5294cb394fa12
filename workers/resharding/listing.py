"""Decide who tells which files there are: this host, or the server behind a URL."""

from __future__ import annotations

import glob
import os
from collections.abc import Iterable
from pathlib import Path
from typing import Protocol

from workers.resharding.remote.address import Location, is_url
from workers.resharding.remote.cache import Cache
from workers.resharding.remote.listing import RemoteListing


class Listing(Protocol):
    """Tells which files there are."""

    def is_folder(self, path: str) -> bool: ...

    def matches(self, pattern: str) -> list[str]:
        """Return the path itself if it is there, else what it matches as a glob, in order."""
        ...

    def expect(self, patterns: Iterable[str]) -> None:
        """Hear which patterns will be asked about."""
        ...

    def location(self, path: str) -> Location: ...


class _LocalListing:
    def is_folder(self, path: str) -> bool:
        return os.path.isdir(path)

    def matches(self, pattern: str) -> list[str]:
        found = glob.glob(pattern, recursive=True)
        return [pattern] if os.path.exists(pattern) else sorted(found)

    def expect(self, patterns: Iterable[str]) -> None:
        pass

    def location(self, path: str) -> Path:
        return Path(path)


LOCAL = _LocalListing()


def listing_of(pattern: str, cache: Cache | None) -> Listing:
    """Return what lists the files of a pattern: this host, or the server behind a URL."""
    if not is_url(pattern):
        return LOCAL
    return RemoteListing(cache or Cache.of({}))
