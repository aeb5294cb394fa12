"""Judge what servers answer, and what the libraries under fsspec raise."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

from workers.resharding.errors import FileChangedError
from workers.resharding.remote.address import Version, is_web, scheme_of, shown
from workers.resharding.remote.errors import (
    MissingPackageError,
    NoSuchFileError,
    PassingError,
    RangesIgnoredError,
    RemoteError,
)

_ETAGS = ("ETag", "etag", "md5Hash", "content_md5", "generation")
_TIMES = ("Last-Modified", "LastModified", "last_modified", "updated", "mtime", "created")
_CONTENT_RANGE = re.compile(r"bytes (\d+)-(\d+)/(\d+|\*)")
_URL = re.compile(r"[a-z][a-z0-9+.-]*://[^\s'\")]+", re.IGNORECASE)


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
    # Of one content, several servers behind one name may tell different times.
    return Version(int(info["size"]), etag, "" if etag else modified)


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
