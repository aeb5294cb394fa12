"""Ask a server for the version of a file, and for ranges of it. The one door to fsspec.

What fsspec does (protocols, proxies, credentials) is configured as fsspec says. One attempt each:
the caller decides whether to try again.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from functools import lru_cache
from typing import Any, Protocol
from urllib.parse import urlsplit

from workers.resharding.errors import FileChangedError
from workers.resharding.remote.address import RemoteFile, Version, is_web, scheme_of, shown
from workers.resharding.remote.answers import explained, version_of
from workers.resharding.remote.errors import MissingPackageError, RemoteError
from workers.resharding.remote.patience import patiently

CONNECT_S, SILENCE_S = 10, 30  # the longest that a server may take, and be silent
CHUNK_NBYTES = 1 << 20  # of a file that is fetched whole

Write = Callable[[bytes], None]


class Store(Protocol):
    """One remote file, as its server gives it."""

    def version(self) -> Version:
        """Ask what the file is at this moment."""
        ...

    def fetch(self, version: Version, start: int, stop: int) -> bytes:
        """Return a range of the file, which must have this version.

        Raises:
            FileChangedError: it has another one.
            RangesIgnoredError: the server gives no ranges of it.
            PassingError: it may work the next time.
            RemoteError: it will not.
        """
        ...

    def fetch_whole(self, version: Version, write: Write) -> None:
        """Hand over all of the file, part by part; raises what ``fetch`` raises."""
        ...


def open_store(file: RemoteFile) -> Store:
    """Return the store of a file.

    Raises:
        MissingPackageError: a package for this kind of URL is not installed.
        RemoteError: nobody knows this kind of URL.
    """
    system = filesystem(file.url)
    if is_web(file.url):
        from workers.resharding.remote.http_store import HttpStore

        return HttpStore(system, file.url)
    if "s3" in system.protocol:
        from workers.resharding.remote.s3_store import S3Store

        return S3Store(system, file.url)
    return AnyStore(system, file.url)


def filesystem(url: str) -> Any:
    """Return fsspec's file system behind a URL; one for each host or bucket in this process."""
    parts = urlsplit(url)
    try:
        return _filesystem(os.getpid(), f"{parts.scheme}://{parts.netloc}/")
    except ImportError as error:
        raise MissingPackageError(parts.scheme, str(error)) from None
    except ValueError:
        reason = f"{parts.scheme}:// is no kind of URL that is known"
        raise RemoteError(shown(url), reason) from None


@lru_cache(maxsize=64)
def _filesystem(_process: int, root: str) -> Any:
    import fsspec

    scheme = scheme_of(root)
    known = fsspec.config.conf.get(scheme, {})
    options: dict[str, Any] = {"use_listings_cache": False, "skip_instance_cache": True}
    if is_web(root):
        import aiohttp

        timeout = aiohttp.ClientTimeout(total=None, sock_connect=CONNECT_S, sock_read=SILENCE_S)
        client = {"timeout": timeout, "trust_env": True}  # proxies and ~/.netrc
        options["client_kwargs"] = client | known.get("client_kwargs", {})
    elif scheme in ("s3", "s3a"):
        config = {"connect_timeout": CONNECT_S, "read_timeout": SILENCE_S}
        options["config_kwargs"] = config | known.get("config_kwargs", {})
    return fsspec.core.url_to_fs(root, **options)[0]


def read_text(url: str) -> str:
    """Return a small file of text, past the cache.

    Raises:
        RemoteError: it cannot be had, or is no text.
    """
    system = filesystem(url)

    def ask() -> bytes:
        with explained(url):
            content: bytes = system.cat_file(system._strip_protocol(url))
        return content

    try:
        return patiently(ask).decode()
    except UnicodeDecodeError:
        raise RemoteError(shown(url), "it is no text") from None


class AnyStore:
    """A file of any file system that fsspec knows."""

    def __init__(self, system: Any, url: str) -> None:
        self._system, self._url = system, url
        self._path = system._strip_protocol(url)

    def version(self) -> Version:
        with explained(self._url):
            info = self._system.info(self._path)
        if info.get("type") == "directory":
            raise RemoteError(shown(self._url), "this is a folder, not a file")
        return version_of(self._url, info)

    def fetch(self, version: Version, start: int, stop: int) -> bytes:
        with explained(self._url):
            content: bytes = self._system.cat_file(self._path, start=start, end=stop)
        if self.version() != version:  # then the bytes may be those of either
            raise FileChangedError(shown(self._url))
        return content

    def fetch_whole(self, version: Version, write: Write) -> None:
        """Never called: no server but those of HTTP ignores ranges."""
        raise NotImplementedError
