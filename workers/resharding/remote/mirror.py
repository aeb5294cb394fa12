"""Give a remote file as a sparse local one, into which ranges are fetched when they are wanted.

Processes share what they fetch: one at a time fetches parts of a file, the others find them there.
What is found is compared with its SHA-256 before it is used, once in each process.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

from workers.resharding.index import FileIdentity
from workers.resharding.remote.address import RemoteFile, Version
from workers.resharding.remote.cache import Entry
from workers.resharding.remote.errors import (
    DigestError,
    PassingError,
    RangesIgnoredError,
    RemoteError,
)
from workers.resharding.remote.patience import patiently
from workers.resharding.remote.progress import Progress
from workers.resharding.remote.ranges import Range, cut, merged, size, touches, within, without
from workers.resharding.remote.store import Store, open_store

GAP_NBYTES = 256 << 10  # fetched along when that saves a request
PART_NBYTES = 8 << 20  # of one request
IN_FLIGHT = 8  # requests for one file at a time


@contextmanager
def open_mirror(file: RemoteFile) -> Iterator[Mirror]:
    """Open a remote file in its cache; its server is asked for the version if that is not known.

    Raises:
        RemoteError, MissingPackageError: it cannot be had.
        CacheError: the cache cannot be used, or has no room.
        DigestError: the SHA-256 of all of it is known, and is another one.
    """
    store = open_store(file)
    version = file.version or patiently(store.version)
    key = f"{file.url}\n{version}"
    with file.cache.entry(file.name or "file", key, version.size) as entry:
        mirror = Mirror(replace(file, version=version), version, entry, store)
        if file.sha256:
            mirror.check_whole(file.sha256)
        yield mirror


class Mirror:
    """An open remote file."""

    def __init__(self, file: RemoteFile, version: Version, entry: Entry, store: Store) -> None:
        self.file, self.size = file, version.size
        self._version, self._entry, self._store = version, entry, store
        self._checked: list[Range] = []

    @property
    def path(self) -> Path:
        """The sparse file. What was not ensured may be zeros."""
        return self._entry.data

    @property
    def descriptor(self) -> int:
        return self._entry.descriptor

    @property
    def identity(self) -> FileIdentity:
        """What changes when somebody writes the remote file."""
        url, tag = (_number(text) for text in (self.file.url, str(self._version)))
        return FileIdentity(-1, url, self.size, tag)

    def has(self, part: Range) -> bool:
        """Return whether a part was ensured already."""
        return within(part, self._checked)

    def held(self) -> list[Range]:
        """Return what is here, whichever process fetched it; none of it was checked."""
        return merged(self._entry.journal())

    def ensure(self, ranges: Iterable[Range]) -> None:
        """Have ranges of the file here, and know that they are what the server gave.

        Raises:
            FileChangedError: the file has another version now.
            RemoteError: it cannot be fetched.
            CacheError: there is no room for it.
        """
        wanted = merged(ranges)
        if self._missing(wanted):
            with self._entry.writing():
                missing = self._missing(wanted)  # another process may have fetched it meanwhile
                if missing:
                    self._fetch(cut(missing, PART_NBYTES))

    def read(self, nbytes: int, start: int) -> bytes:
        """Return bytes of the file; fewer at its end."""
        stop = min(start + nbytes, self.size)
        self.ensure([(start, stop)])
        return self._read(start, stop)

    def __getitem__(self, bounds: slice) -> bytes:
        return self.read(bounds.stop - bounds.start, bounds.start)

    def check_whole(self, sha256: str) -> None:
        """Fetch all of the file, and compare its SHA-256; once for each copy in the cache.

        Raises:
            DigestError: it is another one.
        """
        note = self._entry.folder / f"sha256-{sha256}"
        if note.exists():  # from then on, each part is compared with what it was
            return
        self.ensure([(0, self.size)])
        digest = hashlib.sha256()
        for start, stop in cut([(0, self.size)], PART_NBYTES):
            digest.update(self._read(start, stop))
        if digest.hexdigest() != sha256:
            raise DigestError(str(self.file), sha256, digest.hexdigest())
        note.touch()

    def _missing(self, wanted: list[Range]) -> list[Range]:
        """Return what of some ranges is not here. Parts that are damaged are not here."""
        if not without(wanted, self._checked):
            return []
        found = [
            part
            for part, sha256 in self._entry.journal().items()
            if part[1] <= self.size and touches(part, wanted) and not self.has(part)
            if _sha256(self._read(*part)) == sha256
        ]
        self._checked = merged([*self._checked, *found])
        return without(wanted, self._checked)

    def _fetch(self, parts: list[Range]) -> None:
        self._entry.cache.reserve(self.descriptor, parts)
        progress = Progress(str(self.file), size(parts))
        try:
            for part in _in_turn(self._fetch_part, parts):
                progress.add(part[1] - part[0])
            self._checked = merged([*self._checked, *parts])
        except RangesIgnoredError:
            self._entry.cache.reserve(self.descriptor, [(0, self.size)])
            progress.restart(self.size, "the server ignores byte ranges: all of it is fetched")
            patiently(lambda: self._fetch_whole(progress))

    def _fetch_part(self, part: Range) -> Range:
        content = patiently(lambda: self._ask(part))
        return self._keep(content, part[0])

    def _ask(self, part: Range) -> bytes:
        content = self._store.fetch(self._version, *part)
        if len(content) != part[1] - part[0]:
            reason = f"{part[1] - part[0]} bytes were asked for, {len(content)} came"
            raise PassingError(str(self.file), reason)
        return content

    def _fetch_whole(self, progress: Progress) -> None:
        progress.restart(self.size)
        buffer, position = bytearray(), 0

        def write(chunk: bytes) -> None:
            buffer.extend(chunk)
            progress.add(len(chunk))
            if len(buffer) >= PART_NBYTES:
                flush()

        def flush() -> None:
            nonlocal position
            if position + len(buffer) > self.size:
                reason = f"the server said that it has {self.size} bytes, but sends more"
                raise RemoteError(str(self.file), reason)
            if buffer:
                self._keep(bytes(buffer), position)
            position += len(buffer)
            buffer.clear()

        self._store.fetch_whole(self._version, write)
        flush()
        if position < self.size:
            reason = f"the server said that it has {self.size} bytes, but sent {position}"
            raise PassingError(str(self.file), reason)
        self._checked = [(0, self.size)]

    def _keep(self, content: bytes, start: int) -> Range:
        """Write a part; the journal names it when it is there."""
        position, rest = start, memoryview(content)
        while rest:
            count = os.pwrite(self.descriptor, rest, position)
            position, rest = position + count, rest[count:]
        part = start, start + len(content)
        self._entry.add(part, _sha256(content))
        return part

    def _read(self, start: int, stop: int) -> bytes:
        content = b""
        while more := os.pread(self.descriptor, stop - start - len(content), start + len(content)):
            content += more  # the system may give less than what was asked for
        return content


def _in_turn(fetch: Callable[[Range], Range], parts: list[Range]) -> Iterator[Range]:
    """Fetch several parts at a time; after an error, begin no other."""
    if len(parts) == 1:
        yield fetch(parts[0])
        return
    with ThreadPoolExecutor(min(IN_FLIGHT, len(parts))) as pool:
        try:
            yield from pool.map(fetch, parts)
        finally:
            pool.shutdown(wait=True, cancel_futures=True)


def _sha256(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()


def _number(text: str) -> int:
    return int.from_bytes(hashlib.sha256(text.encode()).digest()[:8], "big")
