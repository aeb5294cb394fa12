"""Read files that MindSpore encrypted: blocks of 64 MiB, each on its own, with the key of the user.

A block is a magic number, for AES-GCM a 16-byte tag, then the length of the rest, the length of
the initial vector, that vector, the length of the ciphertext, and the ciphertext.
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import lru_cache
from pathlib import Path
from types import MappingProxyType
from typing import Any

from workers.resharding.errors import DecryptionError
from workers.resharding.index import Chunk, Cipher
from workers.resharding.wire import Source

KEY_VARIABLE = "LAUNCHER_CHECKPOINT_KEY"  # of the environment; hexadecimal

_MODES = {0x7F3A5ED8: "AES-GCM", 0x7F3A5ED9: "AES-CBC", 0x7F3A5EDA: "SM4-CBC"}
_KEY_SIZES = {"AES-GCM": (16, 24, 32), "AES-CBC": (16, 24, 32), "SM4-CBC": (16,)}
_TAG, _VECTOR, _NUMBER = 16, 16, 4  # bytes
_NONCE = 12  # bytes of the vector that OpenSSL uses for GCM unless it is told otherwise
_MOST_BLOCK = 128 << 20
_CRC_FOOTER = (b"crc_num", 17)  # MindSpore appends one that says nothing, and fails on it later


def read_key(
    path: str | Path | None, environment: Mapping[str, str] = MappingProxyType({})
) -> bytes | None:
    """Return the key in a file (its raw bytes), else the one in the environment, else None.

    Raises:
        DecryptionError: there is a key, but it cannot be used.
    """
    if path is not None:
        try:
            return _checked_key(Path(path).read_bytes(), str(path))
        except OSError as error:
            raise DecryptionError(str(path), f"the key cannot be read: {error.strerror}") from error
    if KEY_VARIABLE not in environment:
        return None
    try:
        return _checked_key(bytes.fromhex(environment[KEY_VARIABLE]), KEY_VARIABLE)
    except ValueError as error:
        raise DecryptionError(KEY_VARIABLE, "the key is not hexadecimal") from error


def _checked_key(key: bytes, source: str) -> bytes:
    sizes = sorted({size for sizes in _KEY_SIZES.values() for size in sizes})
    stripped = key.rstrip(b"\r\n") if len(key) not in sizes else key  # written by an editor
    if len(stripped) not in sizes:
        raise DecryptionError(source, f"a key has {sizes} bytes, this one has {len(key)}")
    return stripped


def cipher_mode(source: Source, size: int) -> str | None:
    """Return how a file is encrypted; None if it is not."""
    return _MODES.get(int.from_bytes(source[0 : min(_NUMBER, size)], "little"))


def read_cipher(source: Source, size: int, mode: str, path: str, key: bytes) -> Cipher:
    """Return where the blocks of an encrypted file lie.

    Raises:
        DecryptionError: the file is torn, or the key does not open it.
    """
    if len(key) not in _KEY_SIZES[mode]:
        raise DecryptionError(path, f"a key of {len(key)} bytes does not fit {mode}")
    blocks, position = [], 0
    while position < size and not _is_footer(source, position, size):
        block = _read_header(source, position, size, mode, path)
        blocks.append(block)
        position += block.nbytes
    if not blocks:
        raise DecryptionError(path, "it holds no block")
    first, last = blocks[0], blocks[-1]
    first_nbytes = len(_decrypt(source, first, mode, path, key))
    last_nbytes = len(_decrypt(source, last, mode, path, key))
    if any(block.nbytes != first.nbytes for block in blocks[:-1]):
        raise DecryptionError(path, "its blocks differ in size")
    nbytes = first_nbytes * (len(blocks) - 1) + last_nbytes
    return Cipher(mode, tuple(blocks), max(first_nbytes, 1), nbytes)


class DecryptedSource:
    """The bytes of an encrypted file; one decrypted block is kept."""

    def __init__(self, source: Source, cipher: Cipher, path: str, key: bytes) -> None:
        self._cipher = cipher
        self._block = lru_cache(maxsize=1)(
            lambda number: _decrypt(source, cipher.blocks[number], cipher.mode, path, key)
        )

    def __getitem__(self, bounds: slice) -> bytes:
        size = self._cipher.block_nbytes
        start, stop = bounds.start, min(bounds.stop, self._cipher.nbytes)
        parts = []
        for number in range(start // size, -(-stop // size)):
            first = number * size
            parts.append(self._block(number)[max(start - first, 0) : stop - first])
        return b"".join(parts)


def _is_footer(source: Source, position: int, size: int) -> bool:
    mark, footer_size = _CRC_FOOTER
    return size - position == footer_size and source[position:size].startswith(mark)


def _read_header(source: Source, position: int, size: int, mode: str, path: str) -> Chunk:
    """Return where a block lies, from its magic number to its end."""
    start = position + _start(mode)
    content = int.from_bytes(source[start - _NUMBER : min(start, size)], "little")
    smallest = _NUMBER + _VECTOR + _NUMBER
    torn = start + content > size or not smallest < content <= _MOST_BLOCK
    if torn or cipher_mode(source[position:start], _NUMBER) != mode:
        raise DecryptionError(path, f"the block at byte {position} is torn")
    return Chunk(position, start - position + content)


def _start(mode: str) -> int:
    """Return where in a block that begins what its length counts."""
    return _NUMBER + (_TAG if mode == "AES-GCM" else 0) + _NUMBER


def _decrypt(source: Source, block: Chunk, mode: str, path: str, key: bytes) -> bytes:
    from cryptography.exceptions import InvalidTag
    from cryptography.hazmat.primitives.ciphers import Cipher as Decipher
    from cryptography.hazmat.primitives.ciphers import algorithms, modes

    content = source[block.offset : block.offset + block.nbytes]
    vector_at = _start(mode) + _NUMBER
    vector = content[vector_at : vector_at + _VECTOR]
    ciphertext = content[vector_at + _VECTOR + _NUMBER :]
    tag = content[_NUMBER : _NUMBER + _TAG]
    try:
        if mode == "AES-GCM":
            return _run(Decipher(algorithms.AES(key), modes.GCM(vector[:_NONCE], tag)), ciphertext)
        algorithm = algorithms.AES(key) if mode == "AES-CBC" else algorithms.SM4(key)
        return _without_padding(_run(Decipher(algorithm, modes.CBC(vector)), ciphertext))
    except (InvalidTag, ValueError) as error:
        raise DecryptionError(
            path, f"the key is another one, or the block at byte {block.offset} is damaged"
        ) from error


def _run(cipher: Any, ciphertext: bytes) -> bytes:
    decryptor = cipher.decryptor()
    plain: bytes = decryptor.update(ciphertext) + decryptor.finalize()
    return plain


def _without_padding(plain: bytes) -> bytes:
    """Return the text without the 1 to 16 bytes at its end, each of which tells how many."""
    count = plain[-1] if plain else 0
    if not 1 <= count <= 16 or plain[-count:] != bytes([count]) * count:
        raise ValueError("wrong padding")
    return plain[:-count]
