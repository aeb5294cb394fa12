"""Fetch ranges over HTTP, and believe no answer that is not exactly what was asked for."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping
from http import HTTPStatus
from typing import Any, TypeVar

import aiohttp
from fsspec.asyn import sync

from workers.resharding.errors import FileChangedError
from workers.resharding.remote.address import Version, shown
from workers.resharding.remote.answers import (
    credentials_of,
    explained,
    require_range,
    version_of,
)
from workers.resharding.remote.errors import (
    NoSuchFileError,
    PassingError,
    RemoteError,
)
from workers.resharding.remote.store import CHUNK_NBYTES, Write

_PASSING = frozenset((408, 425, 429, 500, 502, 503, 504))

T = TypeVar("T")


class HttpStore:
    """A file of a web server."""

    def __init__(self, system: Any, url: str) -> None:
        self._system, self._url = system, url

    def version(self) -> Version:
        with explained(self._url):
            try:
                info = self._system.info(self._url)
            except FileNotFoundError as error:  # fsspec says so of all that fails
                cause = error.__cause__
                if isinstance(cause, aiohttp.ClientResponseError) and cause.status:
                    raise self._refusal(cause.status) from None
                raise cause or error from None
        return version_of(self._url, info)

    def fetch(self, version: Version, start: int, stop: int) -> bytes:
        async def read(answer: aiohttp.ClientResponse) -> bytes:
            self._check(answer, version)
            whole = answer.status == HTTPStatus.OK
            told = "" if whole else answer.headers.get("Content-Range", "nothing")
            require_range(self._url, told, version, start, stop)
            return await answer.read()

        return self._ask({"Range": f"bytes={start}-{stop - 1}"}, version, read)

    def fetch_whole(self, version: Version, write: Write) -> None:
        async def read(answer: aiohttp.ClientResponse) -> None:
            self._check(answer, version)
            async for chunk in answer.content.iter_chunked(CHUNK_NBYTES):
                write(chunk)

        self._ask({}, version, read)

    def _ask(
        self,
        headers: Mapping[str, str],
        version: Version,
        read: Callable[[aiohttp.ClientResponse], Awaitable[T]],
    ) -> T:
        options = dict(self._system.kwargs)
        condition = {"If-Unmodified-Since": version.modified} if not version.etag else {}
        if version.etag.startswith('"'):  # a weak one never matches
            condition = {"If-Match": version.etag}
        options["headers"] = {
            **options.get("headers", {}),
            "Accept-Encoding": "identity",
            **condition,
            **headers,
        }

        async def ask() -> T:
            session = await self._system.set_session()
            async with session.get(self._system.encode_url(self._url), **options) as answer:
                return await read(answer)

        with explained(self._url):
            result: T = sync(self._system.loop, ask)
        return result

    def _check(self, answer: aiohttp.ClientResponse, version: Version) -> None:
        if answer.status >= HTTPStatus.BAD_REQUEST:
            raise self._refusal(answer.status)
        name, tag = ("ETag", version.etag) if version.etag else ("Last-Modified", version.modified)
        if answer.headers.get(name, tag) != tag:
            raise FileChangedError(shown(self._url))

    def _refusal(self, status: int) -> Exception:
        known = status in HTTPStatus._value2member_map_
        said = f"{status} {HTTPStatus(status).phrase}" if known else str(status)
        if status in (HTTPStatus.PRECONDITION_FAILED, HTTPStatus.REQUESTED_RANGE_NOT_SATISFIABLE):
            return FileChangedError(shown(self._url))
        if status in _PASSING:
            return PassingError(shown(self._url), f"the server answers {said}")
        if status in (HTTPStatus.UNAUTHORIZED, HTTPStatus.FORBIDDEN):
            reason = f"access is refused ({said}); {credentials_of(self._url)}"
            return RemoteError(shown(self._url), reason)
        if status in (HTTPStatus.NOT_FOUND, HTTPStatus.GONE):
            return NoSuchFileError(shown(self._url), f"there is no such file ({said})")
        return RemoteError(shown(self._url), f"the server answers {said}")
