"""Say where each tensor of a checkpoint file lies, whatever the format of the file."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import NamedTuple

from workers.resharding.remote.address import Location

OPAQUE = "MapTensor"  # the type of entries that are no tensor


class Chunk(NamedTuple):
    """A run of bytes of a file."""

    offset: int
    nbytes: int


class SavedTensor(NamedTuple):
    """A parameter of a checkpoint file: its chunks, one after the other, hold it row by row."""

    dtype: str  # MindSpore's name; may be one that nobody can load
    dims: tuple[int, ...]
    chunks: tuple[Chunk, ...]

    @property
    def nbytes(self) -> int:
        return sum(chunk.nbytes for chunk in self.chunks)


class FileIdentity(NamedTuple):
    """What changes when somebody writes a file."""

    device: int
    inode: int
    size: int
    mtime_ns: int

    @classmethod
    def of(cls, descriptor: int) -> FileIdentity:
        status = os.fstat(descriptor)
        return cls(status.st_dev, status.st_ino, status.st_size, status.st_mtime_ns)


class Cipher(NamedTuple):
    """How a file is encrypted, block by block, and where each block lies."""

    mode: str  # AES-GCM, AES-CBC or SM4-CBC
    blocks: tuple[Chunk, ...]  # in the file, with their headers
    block_nbytes: int  # of each decrypted block but the last
    nbytes: int  # of all decrypted blocks


@dataclass(frozen=True)
class CheckpointIndex:
    """Where each tensor of a file lies."""

    path: Location
    identity: FileIdentity
    tensors: Mapping[str, SavedTensor]  # in the order of the file
    crc32: int | None = None  # that the file carries, if it does
    format: str = "ckpt"  # or safetensors
    cipher: Cipher | None = None  # if there is one, offsets are those of the decrypted file
    key: bytes | None = field(default=None, repr=False)


class NewFile(NamedTuple):
    """A file that is to be written: all but the content of its tensors."""

    headers: tuple[tuple[int, bytes], ...]  # (offset, what to write there)
    tensors: Mapping[str, SavedTensor]  # where the content goes
    nbytes: int
