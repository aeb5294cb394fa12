"""Name a file behind a URL, and its version. Asks nobody."""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath
from typing import TypeAlias
from urllib.parse import urldefrag, urlsplit, urlunsplit

from workers.resharding.remote.cache import Cache
from workers.resharding.remote.errors import RemoteError

_URL = re.compile(r"[a-z][a-z0-9+.-]*://", re.IGNORECASE)
_SHA256 = re.compile(r"sha256=([0-9a-f]{64})", re.IGNORECASE)


def is_url(text: object) -> bool:
    """Return whether a path is the URL of something remote."""
    return _URL.match(str(text)) is not None


def scheme_of(url: str) -> str:
    """Return https of a URL that begins with https://."""
    return urlsplit(url).scheme


def is_web(url: str) -> bool:
    """Return whether a URL is one of HTTP."""
    return scheme_of(url) in ("http", "https")


def shown(url: str) -> str:
    """Return a URL without what may be secret: names, passwords, tokens and signatures."""
    if not is_url(url):
        return url
    parts = urlsplit(url)
    return urlunsplit((parts.scheme, parts.netloc.rpartition("@")[2], parts.path, "", ""))


@dataclass(frozen=True)
class Version:
    """What tells one content of a file from another."""

    size: int
    etag: str = ""
    modified: str = ""  # when, in the words of the server; counts where there is no ETag

    @property
    def tag(self) -> str:
        return self.etag or self.modified


@dataclass(frozen=True)
class RemoteFile:
    """A file behind a URL. Its text is what may be shown of that."""

    url: str = field(repr=False)
    cache: Cache = field(repr=False)
    sha256: str = ""  # of all of the file, if it is known
    version: Version | None = None  # None until the server was asked

    @classmethod
    def parse(cls, url: str, cache: Cache) -> RemoteFile:
        """Return the file of a URL that may end in ``#sha256=…``.

        Raises:
            RemoteError: it ends in something else.
        """
        address, fragment = urldefrag(url)
        match = _SHA256.fullmatch(fragment)
        if fragment and match is None:
            raise RemoteError(
                shown(url), "what follows the # is not sha256= and 64 hexadecimal digits"
            )
        return cls(address, cache, match[1].lower() if match else "")

    def __str__(self) -> str:
        return shown(self.url)

    def beside(self, suffix: str) -> str:
        """Return the URL of the file whose name is this one's with something behind it."""
        parts = urlsplit(self.url)
        return urlunsplit(parts._replace(path=parts.path + suffix))

    @property
    def name(self) -> str:
        return PurePosixPath(urlsplit(self.url).path).name

    @property
    def stem(self) -> str:
        return PurePosixPath(self.name).stem

    @property
    def suffix(self) -> str:
        return PurePosixPath(self.name).suffix


Location: TypeAlias = Path | RemoteFile
