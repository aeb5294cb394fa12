"""Look for files behind a URL."""

from __future__ import annotations

import re
from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor
from urllib.parse import urlsplit

from workers.resharding.remote.address import RemoteFile, is_web
from workers.resharding.remote.answers import explained
from workers.resharding.remote.cache import Cache
from workers.resharding.remote.errors import NoSuchFileError
from workers.resharding.remote.patience import patiently
from workers.resharding.remote.store import filesystem, open_store

_ESCAPED = re.compile(r"\[([*?[{])\]")  # what rank_files.escape makes
_AT_ONCE = 16


class RemoteListing:
    """What ``rank_files`` asks of a file system. Each question goes to the server once."""

    def __init__(self, cache: Cache) -> None:
        self._cache = cache
        self._folders: dict[str, bool] = {}
        self._found: dict[str, list[str]] = {}  # by pattern
        self._files: dict[str, RemoteFile] = {}  # by URL, those whose version is known

    def is_folder(self, path: str) -> bool:
        """Return whether there is a folder; of a web server, its URL must end in a slash."""
        if is_web(path):
            return path.endswith("/")
        if path not in self._folders:
            self._folders[path] = patiently(lambda: _is_folder(path))
        return self._folders[path]

    def matches(self, pattern: str) -> list[str]:
        """Return the URLs of the files that match a pattern."""
        if pattern not in self._found:
            plain = _ESCAPED.sub("", urlsplit(pattern).path)
            if any(sign in plain for sign in ("*[" if is_web(pattern) else "*?[")):
                self._found[pattern] = patiently(lambda: _glob(pattern))
            else:
                self._found[pattern] = self._exact(_ESCAPED.sub(r"\1", pattern))
        return self._found[pattern]

    def at_hand(self, pattern: str) -> list[str]:
        """Return nothing: many servers list no folder, and others may have much to list."""
        return []

    def expect(self, patterns: Iterable[str]) -> None:
        """Ask about several patterns at once, of which the answers will be wanted."""
        with ThreadPoolExecutor(_AT_ONCE) as pool:
            list(pool.map(self.matches, patterns))

    def location(self, path: str) -> RemoteFile:
        """Return the file of a URL."""
        return self._files.get(path) or RemoteFile.parse(path, self._cache)

    def _exact(self, url: str) -> list[str]:
        file = RemoteFile.parse(url, self._cache)
        try:
            version = patiently(open_store(file).version)
        except NoSuchFileError:
            return []
        self._files[url] = RemoteFile(file.url, file.cache, file.sha256, version)
        return [url]


def _is_folder(url: str) -> bool:
    with explained(url):
        return bool(filesystem(url).isdir(url))


def _glob(pattern: str) -> list[str]:
    system = filesystem(pattern)
    with explained(pattern):
        return sorted(system.unstrip_protocol(name) for name in system.glob(pattern))
