"""Ask a server for the version of a file, and for ranges of it. The one door to fsspec.

What fsspec does (protocols, proxies, credentials) is configured as fsspec says. One attempt each:
the caller decides whether to try again.
"""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from functools import lru_cache
from typing import Any, Protocol
from urllib.parse import urlsplit

from workers.resharding.errors import FileChangedError
from workers.resharding.remote.address import RemoteFile, Version, shown
from workers.resharding.remote.errors import (
    MissingPackageError,
    NoSuchFileError,
    PassingError,
    RangesIgnoredError,
    RemoteError,
)

CONNECT_S, SILENCE_S = 10, 30  # the longest that a server may take, and be silent
_ETAGS = ("ETag", "etag", "md5Hash", "content_md5", "generation")
_TIMES = ("Last-Modified", "LastModified", "last_modified", "updated", "mtime", "created")

CHUNK_NBYTES = 1 << 20  # of a file that is fetched whole
_CONTENT_RANGE = re.compile(r"bytes (\d+)-(\d+)/(\d+|\*)")
_URL = re.compile(r"[a-z][a-z0-9+.-]*://[^\s'\")]+", re.IGNORECASE)

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


def scheme_of(url: str) -> str:
    return urlsplit(url).scheme


def is_web(url: str) -> bool:
    return scheme_of(url) in ("http", "https")


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
    from workers.resharding.remote.patience import patiently

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


def version_of(url: str, info: Mapping[str, Any]) -> Version:
    """Return the version in what a file system says of a file."""
    if info.get("size") is None:
        reason = "the server does not say how large it is; copy it to this host"
        raise RemoteError(shown(url), reason)
    etag, modified = (
        next((str(info[name]) for name in names if info.get(name)), "")
        for names in (_ETAGS, _TIMES)
    )
    if not etag and not modified:
        reason = (
            "the server gives neither an ETag nor a time, so nobody could tell whether the file"
            " changes while it is read; copy it to this host"
        )
        raise RemoteError(shown(url), reason)
    return Version(int(info["size"]), etag, modified)


def require_range(url: str, told: str, version: Version, start: int, stop: int) -> None:
    """Refuse an answer that is not the range that was asked for.

    Args:
        told: the Content-Range of the answer; empty if all of the file comes.
    """
    if not told and (start, stop) != (0, version.size):
        raise RangesIgnoredError(shown(url), "the server ignores byte ranges")
    if not told:
        return
    match = _CONTENT_RANGE.fullmatch(told)
    if match is None or (int(match[1]), int(match[2])) != (start, stop - 1):
        reason = f"bytes {start}-{stop - 1} were asked for, the server sends {told!r}"
        raise PassingError(shown(url), reason)
    if match[3] not in ("*", str(version.size)):
        reason = f"the server said that it has {version.size} bytes, and now {match[3]}"
        raise RemoteError(shown(url), reason)


@contextmanager
def explained(url: str) -> Iterator[None]:
    """Turn what fsspec and the libraries under it raise into errors of this package.

    The causes are cut off: their texts may hold the URL with all that is secret in it.
    """
    try:
        yield
    except FileNotFoundError:
        raise NoSuchFileError(shown(url), "there is no such file") from None
    except PermissionError:
        raise RemoteError(shown(url), f"access is refused; {credentials_of(url)}") from None
    except (TimeoutError, ConnectionError) as error:
        raise PassingError(shown(url), f"the server does not answer ({_kind(error)})") from None
    except OSError as error:
        if _s3_code(error) in ("PreconditionFailed", "412", "InvalidRange", "416"):
            raise FileChangedError(shown(url)) from None
        raise PassingError(shown(url), _told(error, error.strerror or str(error))) from None
    except ImportError as error:
        raise MissingPackageError(scheme_of(url), str(error)) from None
    except Exception as error:
        if isinstance(error, RemoteError | FileChangedError):
            raise
        raise PassingError(shown(url), _told(error, str(error))) from None


def credentials_of(url: str) -> str:
    """Say where the credentials for a URL are looked for."""
    scheme = scheme_of(url)
    if is_web(url):
        return f"names and passwords are read from ~/.netrc, headers from FSSPEC_{scheme.upper()}"
    if scheme in ("s3", "s3a"):
        return "they are read from AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, or ~/.aws"
    return f"they are read from FSSPEC_{scheme.upper()}, see the documentation of fsspec"


def _s3_code(error: BaseException) -> str | None:
    """Return the code in the answer of an S3 server that led to an error."""
    answer = getattr(error.__cause__, "response", None) or {}
    code: str | None = answer.get("Error", {}).get("Code")
    return code


def _told(error: BaseException, text: str) -> str:
    return f"{_kind(error)}: {_URL.sub(lambda match: shown(match[0]), text)}"


def _kind(error: BaseException) -> str:
    return type(error).__name__
