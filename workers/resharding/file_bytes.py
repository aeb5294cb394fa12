"""Give the bytes of a checkpoint file: mapped, read, or decrypted. What they mean is for others."""

from __future__ import annotations

import mmap
import os
from collections.abc import Iterator, Mapping
from contextlib import AbstractContextManager, ExitStack, contextmanager, nullcontext, suppress
from typing import Protocol

import numpy as np

from workers.resharding.encryption import DecryptedSource
from workers.resharding.errors import FileChangedError, UnreadableFileError
from workers.resharding.index import CheckpointIndex, FileIdentity
from workers.resharding.local_files import is_local
from workers.resharding.remote.address import Location, RemoteFile
from workers.resharding.remote.mirror import Mirror, open_mirror
from workers.resharding.torn_mapping import guarded

_READ_NBYTES = 8 << 20  # of one read; large enough for any disk
_MAP_NBYTES = 32 << 20  # of files that may count as memory of this process
_DENSE_NBYTES = 16 << 10  # runs that are shorter are read together with what lies between them
_AHEAD_NBYTES = 64 << 20  # of a remote file, in which view follows view
_MADV_POPULATE_READ = 22  # Linux 5.14: map pages in one go, not at 16 of them a fault


class Workspace:
    """The memory that open files share: pages of mapped ones, and room for what is read."""

    def __init__(self, map_nbytes: int = _MAP_NBYTES) -> None:
        """Take how much of mapped files may count as memory of this process."""
        self.map_nbytes = map_nbytes
        self._mapped: list[mmap.mmap] = []
        self._spanned = 0  # bytes of mapped files that were looked at since the last release
        self._room = memoryview(bytearray())

    def span(self, nbytes: int) -> None:
        """Note that so much of a mapped file is looked at; let go of what was before."""
        self._spanned += nbytes
        if self._spanned > self.map_nbytes:
            for mapped in self._mapped:
                mapped.madvise(mmap.MADV_DONTNEED)  # the pages stay in the cache of the system
            self._spanned = nbytes

    def room(self, nbytes: int) -> memoryview:
        """Return memory to read into; it is the same every time."""
        if nbytes > len(self._room):
            self._room = memoryview(bytearray(nbytes))
        return self._room[:nbytes]

    @contextmanager
    def holding(self, mapped: mmap.mmap) -> Iterator[None]:
        """Let go of a mapped file's pages, too, until the block ends."""
        self._mapped.append(mapped)
        try:
            yield
        finally:
            self._mapped.remove(mapped)


class FileBytes(Protocol):
    """The bytes of an open file."""

    most_nbytes: int  # what one view should span
    dense_nbytes: int  # runs of at least this size should each be a view of their own

    def view(self, start: int, stop: int, dense: bool = True) -> memoryview:
        """Return some bytes; they are good until the next view of this workspace is taken.

        Args:
            dense: most of them will be looked at.
        """
        ...


@contextmanager
def open_bytes(
    index: CheckpointIndex,
    workspace: Workspace | None = None,
    fetched: Mirror | None = None,
    few: bool = False,
) -> Iterator[FileBytes]:
    """Open a file that must be as it was when its index was read, and stay so until the end.

    Args:
        workspace: what it shares with other open files; a new one if not given.
        fetched: of a remote file, where all that will be viewed is already. Otherwise each view
            is fetched when it is taken.
        few: bytes will be viewed, so that a mapping is not worth its while.

    Raises:
        FileChangedError: it is not the same file, was written to, or became shorter.
    """
    path = str(index.path)
    workspace = workspace or Workspace()
    if isinstance(index.path, RemoteFile):
        with _open_remote(index, index.path, workspace, fetched) as remote:
            yield remote
        return
    try:
        descriptor = os.open(path, os.O_RDONLY)
    except OSError as error:
        raise FileChangedError(path) from error
    try:
        if FileIdentity.of(descriptor) != index.identity:
            raise FileChangedError(path)
        if index.cipher is not None and index.key is not None:
            plain = _ReadBytes(descriptor, path, workspace)
            yield _DecryptedBytes(DecryptedSource(plain, index.cipher, path, index.key))
        elif not few and is_local(index.path):
            with _map(descriptor, index.identity.size, path, workspace) as mapped:
                yield mapped
        else:
            yield _ReadBytes(descriptor, path, workspace)
        if FileIdentity.of(descriptor) != index.identity:
            raise FileChangedError(path)
    finally:
        os.close(descriptor)


@contextmanager
def _open_remote(
    index: CheckpointIndex, file: RemoteFile, workspace: Workspace, fetched: Mirror | None
) -> Iterator[FileBytes]:
    with open_mirror(file) if fetched is None else nullcontext(fetched) as mirror:
        if index.cipher is not None and index.key is not None:
            yield _DecryptedBytes(DecryptedSource(mirror, index.cipher, str(file), index.key))
        elif is_local(mirror.path):
            with _map(mirror.descriptor, mirror.size, str(file), workspace) as mapped:
                yield mapped if fetched else _FetchedBytes(mapped, mirror)
        else:
            read = _ReadBytes(mirror.descriptor, str(file), workspace)
            yield read if fetched else _FetchedBytes(read, mirror)


@contextmanager
def _map(descriptor: int, size: int, path: str, workspace: Workspace) -> Iterator[FileBytes]:
    with (
        mmap.mmap(descriptor, size, access=mmap.ACCESS_READ) as mapped,
        workspace.holding(mapped),
    ):
        address = np.frombuffer(mapped, np.uint8).ctypes.data
        with guarded(address, size) as mapping:
            yield _MappedBytes(mapped, workspace)
        if mapping.torn:
            raise FileChangedError(path)


class _MappedBytes:
    dense_nbytes = 1 << 62  # what lies between the bytes of a view costs nothing

    def __init__(self, mapped: mmap.mmap, workspace: Workspace) -> None:
        self._mapped, self._workspace = mapped, workspace
        self.most_nbytes = workspace.map_nbytes // 2  # as much may be mapped from the view before

    def view(self, start: int, stop: int, dense: bool = True) -> memoryview:
        self._workspace.span(stop - start)
        if dense:
            first = start - start % mmap.PAGESIZE
            self._mapped.madvise(mmap.MADV_WILLNEED, first, stop - first)  # from disk: all at once
            with suppress(OSError):  # an old kernel, or the file has shrunk: the copy will tell
                self._mapped.madvise(_MADV_POPULATE_READ, first, stop - first)
        return memoryview(self._mapped)[start:stop]


class _ReadBytes:
    most_nbytes = _READ_NBYTES
    dense_nbytes = _DENSE_NBYTES

    def __init__(self, descriptor: int, path: str, workspace: Workspace) -> None:
        self._descriptor, self._path, self._workspace = descriptor, path, workspace

    def view(self, start: int, stop: int, dense: bool = True) -> memoryview:
        room = self._workspace.room(stop - start)
        position = start
        while position < stop:  # the system may give less than what was asked for
            try:
                count = os.preadv(self._descriptor, [room[position - start :]], position)
            except OSError as error:  # of a disk, or of the server of a network file system
                raise UnreadableFileError(self._path, str(error.strerror)) from error
            if count == 0:
                raise FileChangedError(self._path)
            position += count
        return room

    def __getitem__(self, bounds: slice) -> bytes:
        return bytes(self.view(bounds.start, bounds.stop))


class _FetchedBytes:
    """The bytes of a remote file, fetched when they are looked at."""

    def __init__(self, here: FileBytes, mirror: Mirror) -> None:
        self.most_nbytes, self.dense_nbytes = here.most_nbytes, here.dense_nbytes
        self._here, self._mirror = here, mirror
        self._stop = 0  # of the view before

    def view(self, start: int, stop: int, dense: bool = True) -> memoryview:
        if not self._mirror.has((start, stop)):
            # A file that is read in order is fetched by several requests at a time.
            ahead = _AHEAD_NBYTES if start == self._stop else 0
            self._mirror.ensure([(start, min(stop + ahead, self._mirror.size))])
        self._stop = stop
        return self._here.view(start, stop, dense)


class _DecryptedBytes:
    most_nbytes = _READ_NBYTES
    dense_nbytes = _DENSE_NBYTES

    def __init__(self, source: DecryptedSource) -> None:
        self._source = source

    def view(self, start: int, stop: int, dense: bool = True) -> memoryview:
        return memoryview(self._source[start:stop])


class OpenFiles(AbstractContextManager["OpenFiles"]):
    """Files that are opened when they are asked for, and stay open as long as there is room."""

    def __init__(
        self,
        indices: Mapping[Location, CheckpointIndex],
        most: int,
        fetched: Mapping[Location, Mirror],
        users: int = 1,
    ) -> None:
        """Take the indices of the files.

        Args:
            fetched: of remote files, where all that will be viewed is already.
            users: how many of these look at files at the same time.
        """
        self._indices, self._most, self._fetched = indices, most, fetched
        self._workspace = Workspace(_MAP_NBYTES // users)
        self._open: dict[Location, tuple[FileBytes, ExitStack]] = {}  # the first was opened first

    def __getitem__(self, path: Location) -> FileBytes:
        if path not in self._open:
            if len(self._open) >= self._most:
                self._open.pop(next(iter(self._open)))[1].close()
            stack = ExitStack()
            file = stack.enter_context(
                open_bytes(self._indices[path], self._workspace, self._fetched.get(path))
            )
            self._open[path] = file, stack
        return self._open[path][0]

    def __exit__(self, *raised: object) -> None:
        """Close all; raise for one that changed, unless another error is on its way."""
        with ExitStack() as together:
            for _, stack in self._open.values():
                together.push(stack)
