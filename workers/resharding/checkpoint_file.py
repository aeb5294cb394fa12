"""Open a checkpoint file of any format: return the index of one, or write a new one."""

from __future__ import annotations

import os
import stat
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from types import MappingProxyType
from typing import Any

import numpy as np
from numpy.typing import NDArray

from workers.resharding import ckpt_format, safetensors_format
from workers.resharding.atomic import atomic_file
from workers.resharding.dtypes import STORAGE, name_of
from workers.resharding.encryption import DecryptedSource, cipher_mode, read_cipher
from workers.resharding.errors import (
    CheckpointFormatError,
    DecryptionError,
    EncryptedCheckpointError,
    UnreadableFileError,
)
from workers.resharding.index import (
    CheckpointIndex,
    Chunk,
    Cipher,
    FileIdentity,
    NewFile,
    SavedTensor,
)
from workers.resharding.remote.address import Location, RemoteFile
from workers.resharding.remote.mirror import open_mirror
from workers.resharding.wire import Source, WireError

__all__ = ["CheckpointIndex", "Chunk", "FileIdentity", "SavedTensor"]

SAFETENSORS = ".safetensors"
_AHEAD_NBYTES = 1 << 10  # covers the header of a tensor, and many small tensors
_REMOTE_AHEAD_NBYTES = 32 << 10  # what comes along costs less than another request
_REMOTE_AT_ONCE = 16


def read_indices(
    paths: Mapping[int, Location], key: bytes | None = None
) -> dict[int, CheckpointIndex]:
    """Return the index of the file of each rank; of remote files, several are read at a time."""
    if not any(isinstance(path, RemoteFile) for path in paths.values()):
        return {rank: read_index(path, key) for rank, path in paths.items()}
    with ThreadPoolExecutor(_REMOTE_AT_ONCE) as pool:
        indices = pool.map(lambda path: read_index(path, key), paths.values())
        return dict(zip(paths, indices))


def read_index(path: str | Location, key: bytes | None = None) -> CheckpointIndex:
    """Return the index of a checkpoint file.

    Args:
        key: opens the file if it is encrypted.

    Raises:
        UnreadableFileError: the file cannot be opened.
        CheckpointFormatError: it is no checkpoint, or is torn.
        EncryptedCheckpointError, DecryptionError: the key is missing, or another one.
    """
    if isinstance(path, RemoteFile):
        return _read_remote_index(path, key)
    path = path if isinstance(path, Path) else Path(path)
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK)  # a FIFO would wait for a writer
    except OSError as error:
        raise UnreadableFileError(str(path), str(error.strerror)) from error
    try:
        if stat.S_ISFIFO(os.fstat(descriptor).st_mode):
            raise UnreadableFileError(str(path), "it is a pipe; name a file")
        identity = FileIdentity.of(descriptor)
        window = _Window(lambda nbytes, start: os.pread(descriptor, nbytes, start), _AHEAD_NBYTES)
        return _read_index(path, identity, window, key)
    except WireError as error:
        raise CheckpointFormatError(str(path), error.offset, error.reason) from error
    except OSError as error:
        raise UnreadableFileError(str(path), str(error.strerror)) from error
    finally:
        os.close(descriptor)


def _read_remote_index(file: RemoteFile, key: bytes | None) -> CheckpointIndex:
    with open_mirror(file) as mirror:
        first = min(_REMOTE_AHEAD_NBYTES, mirror.size)
        last = max(mirror.size - _AHEAD_NBYTES, 0)
        mirror.ensure([(0, first), (last, mirror.size)])
        try:
            window = _Window(mirror.read, _REMOTE_AHEAD_NBYTES)
            return _read_index(mirror.file, mirror.identity, window, key)
        except WireError as error:
            raise CheckpointFormatError(str(file), error.offset, error.reason) from error


def _read_index(
    path: Location, identity: FileIdentity, file: Source, key: bytes | None
) -> CheckpointIndex:
    source, size = file, identity.size
    if size == 0:
        raise WireError(0, "the file is empty")
    if path.suffix == ".tmp":
        raise WireError(0, "its writer has not finished it")
    if path.suffix == SAFETENSORS:
        tensors, crc32 = safetensors_format.read_tensors(source, size)
        return CheckpointIndex(path, identity, tensors, crc32, "safetensors")
    cipher = _cipher(path, file, size, key)
    if cipher is not None and key is not None:
        source, size = DecryptedSource(file, cipher, str(path), key), cipher.nbytes
    try:
        tensors, crc32 = ckpt_format.read_tensors(source, size)
    except WireError as error:
        if cipher is None:
            raise
        reason = f"the key is another one, or the file is damaged ({error.reason})"
        raise DecryptionError(str(path), reason) from error
    return CheckpointIndex(path, identity, tensors, crc32, "ckpt", cipher, cipher and key)


def _cipher(path: Location, source: Source, size: int, key: bytes | None) -> Cipher | None:
    mode = cipher_mode(source, size)
    if mode is None:
        return None
    if key is None:
        raise EncryptedCheckpointError(str(path), mode)
    return read_cipher(source, size, mode, str(path), key)


class _Window:
    """The bytes of a file, read where they are asked for and a little beyond."""

    def __init__(self, read: Callable[[int, int], bytes], ahead: int) -> None:
        """Take what reads ``nbytes`` from ``start`` on, and how many it should be at least."""
        self._read, self._ahead = read, ahead
        self._start, self._bytes = 0, b""

    def __getitem__(self, bounds: slice) -> bytes:
        start, stop = bounds.start, bounds.stop  # within the file
        if start < self._start or stop > self._start + len(self._bytes):
            self._start = start
            self._bytes = self._read(max(stop - start, self._ahead), start)
            if len(self._bytes) < stop - start:
                raise WireError(start, "the file ends here, and did not when it was opened")
        return self._bytes[start - self._start : stop - self._start]


def lay_out(
    path: Path,
    tensors: Mapping[str, tuple[str, tuple[int, ...]]],
    chunk_nbytes: int = ckpt_format.CHUNK_NBYTES,
) -> NewFile:
    """Return a new file in the format that its name tells, with (type, dims) of each tensor."""
    if path.suffix == SAFETENSORS:
        return safetensors_format.lay_out(tensors)
    return ckpt_format.lay_out(tensors, chunk_nbytes)


def write_checkpoint(
    path: str | Path,
    tensors: Mapping[str, NDArray[Any]],
    dtypes: Mapping[str, str] = MappingProxyType({}),
    chunk_nbytes: int = ckpt_format.CHUNK_NBYTES,
) -> None:
    """Write arrays as a checkpoint that ``mindspore.load_checkpoint`` reads.

    Args:
        path: says the format: .safetensors, else .ckpt.
        dtypes: MindSpore's name of an element type, for arrays whose NumPy type does not tell
            (bfloat16 held as uint16: ``{"w": "BFloat16"}``).
        chunk_nbytes: cut larger parameters of a .ckpt file into chunks of this size.
    """
    described = {}
    for name, array in tensors.items():
        dtype = dtypes.get(name) or name_of(array.dtype)
        if array.dtype != STORAGE[dtype]:
            raise ValueError(f"{name}: {array.dtype} does not hold the bits of {dtype}")
        described[name] = (dtype, array.shape)
    new = lay_out(Path(path), described, chunk_nbytes)
    with atomic_file(Path(path)) as file:
        for offset, header in new.headers:
            file.seek(offset)
            file.write(header)
        for name, array in tensors.items():
            content = np.ascontiguousarray(array).reshape(-1).view(np.uint8).data
            start = 0
            for chunk in new.tensors[name].chunks:
                file.seek(chunk.offset)
                file.write(content[start : start + chunk.nbytes])
                start += chunk.nbytes
