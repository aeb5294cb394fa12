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

    def at_hand(self, pattern: str) -> list[str]:
        """Return the same, or nothing where that could cost much or be refused."""
        ...

    def expect(self, patterns: Iterable[str]) -> None:
        """Hear which patterns will be asked about."""
        ...

    def location(self, path: str) -> Location: ...


class LocalListing:
    """What ``rank_files`` asks of this host. Each folder is looked into once."""

    def __init__(self) -> None:
        self._names: dict[str, list[str]] = {}  # by folder

    def is_folder(self, path: str) -> bool:
        return os.path.isdir(path)

    def matches(self, pattern: str) -> list[str]:
        folder, name = os.path.split(pattern)
        if folder and name.startswith("*.") and not glob.has_magic(folder + name[1:]):
            return self._ending_in(name[1:], folder, pattern)
        if os.path.exists(pattern):
            return [pattern]
        return sorted(glob.glob(pattern, recursive=True))

    def at_hand(self, pattern: str) -> list[str]:
        return self.matches(pattern)

    def expect(self, patterns: Iterable[str]) -> None:
        pass

    def location(self, path: str) -> Path:
        return Path(path)

    def _ending_in(self, suffix: str, folder: str, pattern: str) -> list[str]:
        """Return what glob does for ``*`` and a suffix, without a look at the folder for each."""
        if folder not in self._names:
            try:
                self._names[folder] = sorted(os.listdir(folder))
            except OSError:
                self._names[folder] = []
        names = self._names[folder]
        if "*" + suffix in names:
            return [pattern]
        return [
            os.path.join(folder, name)
            for name in names
            if name.endswith(suffix) and not name.startswith(".")
        ]


def listing_of(pattern: str, cache: Cache | None) -> Listing:
    """Return what lists the files of a pattern: this host, or the server behind a URL."""
    if not is_url(pattern):
        return LocalListing()
    return RemoteListing(cache or Cache.of({}))
