"""Keep parts of remote files on this host, for all processes together, and not too much of them.

Each version of a file has a folder: a sparse file ``data`` of its full size, and ``journal``, which
says which ranges of it are there and what their SHA-256 is. What no journal names is not there.
"""

from __future__ import annotations

import fcntl
import hashlib
import os
import re
import shutil
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from workers.resharding.remote.errors import CacheError
from workers.resharding.remote.ranges import Range
from workers.resharding.remote.ranges import size as size_of

FOLDER_VARIABLE, SIZE_VARIABLE = "LAUNCHER_CACHE", "LAUNCHER_CACHE_SIZE"
DEFAULT_SIZE = "64G"
_SIZE = re.compile(r"(\d+(?:\.\d+)?)\s*([kmgt]?)i?b?", re.IGNORECASE)
_UNITS = " kmgt"
_LINE = re.compile(r"(\d+) (\d+) ([0-9a-f]{64})")
_HEADER_NBYTES = 64 << 10  # there are many of this size; they count when larger ranges come
_BLOCK = 512  # bytes; the unit of st_blocks


def parse_size(text: str) -> int:
    """Return the bytes of ``500M`` or ``64G``.

    Raises:
        ValueError: it is no size.
    """
    match = _SIZE.fullmatch(text.strip())
    if match is None:
        raise ValueError(f"{text!r} is no size", "write 500M or 64G")
    return int(float(match[1]) * 1024 ** _UNITS.index(match[2].lower() or " "))


def cache_variables(folder: str | Path | None, size: str | None) -> dict[str, str]:
    """Return what tells a process of a cache by its environment."""
    told = {FOLDER_VARIABLE: folder, SIZE_VARIABLE: size}
    return {name: str(value) for name, value in told.items() if value is not None}


@dataclass(frozen=True)
class Cache:
    """Where parts of remote files are kept, and how much of them."""

    folder: Path
    most_nbytes: int

    @classmethod
    def of(
        cls,
        environment: Mapping[str, str],
        folder: str | Path | None = None,
        size: str | None = None,
    ) -> Cache:
        """Return the cache that an environment asks for.

        Args:
            folder, size: win over the environment.

        Raises:
            CacheError: the size is none.
        """
        home = environment.get("XDG_CACHE_HOME") or os.path.expanduser("~/.cache")
        default = Path(home, "ascend-slice-launcher")
        folder = Path(folder or environment.get(FOLDER_VARIABLE) or default).absolute()
        try:
            return cls(folder, parse_size(size or environment.get(SIZE_VARIABLE) or DEFAULT_SIZE))
        except ValueError as error:
            raise CacheError(str(folder), f"{SIZE_VARIABLE}: {'; '.join(error.args)}") from error

    @contextmanager
    def entry(self, name: str, key: str, size: int) -> Iterator[Entry]:
        """Open the folder of one version of a file; nobody evicts it meanwhile.

        Args:
            name: for people, who look into the cache.
            key: tells this version of this file from all others.
        """
        folder = self.folder / f"{name[:80]}-{hashlib.sha256(key.encode()).hexdigest()[:32]}"
        try:
            descriptor = _open_data(folder, size)
        except OSError as error:
            reason = f"{error.strerror}; name another folder with --cache or {FOLDER_VARIABLE}"
            raise CacheError(str(self.folder), reason) from error
        try:
            yield Entry(self, folder, descriptor)
        finally:
            os.close(descriptor)

    def reserve(self, descriptor: int, ranges: Sequence[Range]) -> None:
        """Take room for ranges of a file, evicting what was not used for longest.

        Raises:
            CacheError: there is no room.
        """
        needed = size_of(ranges)
        if needed <= _HEADER_NBYTES:
            return
        own = os.fstat(descriptor).st_ino
        with _locked(self.folder / "lock"):
            kept = sorted(_data_files(self.folder), key=lambda found: found[1].st_mtime_ns)
            total = needed + sum(status.st_blocks for _, status in kept) * _BLOCK
            for data, status in kept:
                if total <= self.most_nbytes:
                    break
                if status.st_ino != own and _evict(data):
                    total -= status.st_blocks * _BLOCK
            if total > self.most_nbytes:
                reason = (
                    f"it may hold {self.most_nbytes:,} bytes, {total:,} are needed at a time;"
                    f" allow more with --cache-size or {SIZE_VARIABLE}"
                )
                raise CacheError(str(self.folder), reason)
            try:
                for start, stop in ranges:
                    os.posix_fallocate(descriptor, start, stop - start)
            except OSError as error:
                reason = f"{error.strerror}: {needed:,} bytes are needed; make room"
                raise CacheError(str(self.folder), reason) from error


@dataclass(frozen=True)
class Entry:
    """One version of a remote file, as far as it is there."""

    cache: Cache
    folder: Path
    descriptor: int  # of the sparse file

    @property
    def data(self) -> Path:
        return self.folder / "data"

    def journal(self) -> dict[Range, str]:
        """Return the ranges that are there, with the SHA-256 of each."""
        try:
            text = self._journal.read_text(encoding="ascii", errors="replace")
        except FileNotFoundError:
            return {}
        lines = filter(None, map(_LINE.fullmatch, text.split("\n")))
        found = {(int(line[1]), int(line[2])): line[3] for line in lines}
        return {part: sha256 for part, sha256 in found.items() if part[0] < part[1]}

    @contextmanager
    def writing(self) -> Iterator[None]:
        """Let no other process fetch parts of this file until the block ends."""
        with _locked(self.folder / "lock"):
            yield

    def add(self, part: Range, sha256: str) -> None:
        """Note that a range is there."""
        with self._journal.open("a", encoding="ascii") as journal:
            journal.write(f"\n{part[0]} {part[1]} {sha256}\n")  # a writer may have died in a line

    @property
    def _journal(self) -> Path:
        return self.folder / "journal"


def _open_data(folder: Path, size: int) -> int:
    while True:
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        try:
            descriptor = os.open(folder / "data", os.O_RDWR | os.O_CREAT, 0o600)
        except FileNotFoundError:
            continue  # somebody evicted it at this moment
        fcntl.flock(descriptor, fcntl.LOCK_SH)
        if os.fstat(descriptor).st_nlink:
            break
        os.close(descriptor)
    if os.fstat(descriptor).st_size != size:
        os.ftruncate(descriptor, size)
    os.utime(descriptor)
    return descriptor


def _data_files(folder: Path) -> Iterator[tuple[Path, os.stat_result]]:
    for data in folder.glob("*/data"):
        try:
            yield data, data.stat()
        except FileNotFoundError:
            continue


def _evict(data: Path) -> bool:
    """Remove a file with its folder, unless somebody has it open."""
    with data.open("rb") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return False
        shutil.rmtree(data.parent, ignore_errors=True)
    return True


@contextmanager
def _locked(path: Path) -> Iterator[None]:
    with path.open("w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield
