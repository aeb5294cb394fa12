"""Fetch ranges of objects in a bucket, each with the ETag that it must have."""

from __future__ import annotations

from typing import Any

from fsspec.asyn import sync

from workers.resharding.remote.address import Version
from workers.resharding.remote.answers import explained, require_range
from workers.resharding.remote.store import CHUNK_NBYTES, AnyStore, Write


class S3Store(AnyStore):
    """An object of S3, or of a store that speaks S3."""

    def fetch(self, version: Version, start: int, stop: int) -> bytes:
        answer = self._ask(version, Range=f"bytes={start}-{stop - 1}")
        try:
            require_range(self._url, answer.get("ContentRange") or "", version, start, stop)
            with explained(self._url):
                content: bytes = sync(self._system.loop, answer["Body"].read)
        finally:
            answer["Body"].close()
        return content

    def fetch_whole(self, version: Version, write: Write) -> None:
        answer = self._ask(version)
        try:
            with explained(self._url):
                while chunk := sync(self._system.loop, answer["Body"].read, CHUNK_NBYTES):
                    write(chunk)
        finally:
            answer["Body"].close()

    def _ask(self, version: Version, **more: str) -> Any:
        bucket, key, _ = self._system.split_path(self._path)
        asked = {"Bucket": bucket, "Key": key, "IfMatch": version.etag, **more}
        with explained(self._url):
            return self._system.call_s3("get_object", **asked, **self._system.req_kw)
