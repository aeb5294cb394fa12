from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from workers.resharding.checkpoint import open_checkpoint
from workers.resharding.checkpoint_file import read_index
from workers.resharding.encryption import KEY_VARIABLE, read_key
from workers.resharding.errors import DecryptionError, EncryptedCheckpointError
from workers.resharding.execute import execute
from workers.resharding.plan import plan_rank

W = np.arange(600, dtype=np.float32).reshape(20, 30)
MODES = [("AES-GCM", 16), ("AES-GCM", 32), ("AES-CBC", 24), ("SM4-CBC", 16)]


def encrypted(path: Path, mode: str, key: bytes) -> Path:
    import mindspore

    tensors = [{"name": "w", "data": mindspore.Tensor(W)}]
    tensors += [{"name": "v", "data": mindspore.Tensor(W.T.copy())}]
    mindspore.save_checkpoint(tensors, str(path), enc_key=key, enc_mode=mode)
    path.chmod(0o600)
    return path


@pytest.mark.parametrize("block_kib", [64 * 1024, 1])  # of 64 MiB there is one block only
@pytest.mark.parametrize(("mode", "size"), MODES)
def test_what_mindspore_encrypted_is_read_with_the_key(
    mode: str,
    size: int,
    block_kib: int,
    tmp_path: Path,
    want: Callable[..., Any],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    from mindspore.train import serialization

    monkeypatch.setattr(serialization, "ENCRYPT_BLOCK_SIZE", block_kib)
    key = bytes(range(size))
    path = encrypted(tmp_path / "c.ckpt", mode, key)
    checkpoint = open_checkpoint(str(path), key=key)
    cipher = checkpoint.files[0].cipher
    assert cipher is not None
    assert (len(cipher.blocks) > 1) == (block_kib == 1)
    loaded = execute(plan_rank(checkpoint, {"v": want((30, 20)), "w": want((20, 30))}, 0))
    np.testing.assert_array_equal(loaded["w"], W)
    np.testing.assert_array_equal(loaded["v"], W.T)


@pytest.mark.parametrize(("mode", "size"), MODES)
def test_without_the_key_or_with_another_one_nothing_is_read(
    mode: str, size: int, tmp_path: Path
) -> None:
    path = encrypted(tmp_path / "c.ckpt", mode, bytes(range(size)))
    with pytest.raises(EncryptedCheckpointError, match=f"encrypted .{mode}.*; give its key"):
        read_index(path)
    with pytest.raises(DecryptionError, match="the key is another one"):
        read_index(path, bytes(size))
    with pytest.raises(DecryptionError, match="a key of 5 bytes does not fit"):
        read_index(path, b"12345")


def test_an_encrypted_file_cut_anywhere_is_refused(tmp_path: Path) -> None:
    path = encrypted(tmp_path / "c.ckpt", "AES-GCM", bytes(16))
    content = path.read_bytes()
    for length in [*range(4, 60), *range(60, len(content), 97), len(content) - 1]:
        path.write_bytes(content[:length])
        with pytest.raises(DecryptionError, match="c.ckpt: "):
            read_index(path, bytes(16))


def test_every_flipped_bit_of_an_authenticated_file_is_noticed(tmp_path: Path) -> None:
    path = encrypted(tmp_path / "c.ckpt", "AES-GCM", bytes(16))
    content = bytearray(path.read_bytes())
    for place in [*range(60), *range(60, len(content), 101)]:
        content[place] ^= 4
        path.write_bytes(content)
        if 40 <= place < 44:  # the last bytes of the vector, which OpenSSL does not use
            assert len(read_index(path, bytes(16)).tensors) == 2
        elif 24 <= place < 28 or 44 <= place < 48:  # lengths that repeat what another one says
            assert len(read_index(path, bytes(16)).tensors) == 2
        else:
            with pytest.raises(Exception, match="c.ckpt"):
                read_index(path, bytes(16))
        content[place] ^= 4


def test_the_key_comes_from_a_file_or_the_environment(tmp_path: Path) -> None:
    key = bytes(range(32))
    (tmp_path / "key").write_bytes(key)
    (tmp_path / "line").write_bytes(b"0123456789abcdef\n")
    assert read_key(tmp_path / "key") == key
    assert read_key(tmp_path / "line") == b"0123456789abcdef"
    assert read_key(None, {KEY_VARIABLE: key.hex()}) == key
    assert read_key(None) is None


def test_a_key_that_cannot_be_one_is_refused(tmp_path: Path) -> None:
    (tmp_path / "short").write_bytes(b"123")
    with pytest.raises(DecryptionError, match="short: a key has .16, 24, 32. bytes, this .* 3"):
        read_key(tmp_path / "short")
    with pytest.raises(DecryptionError, match="the key cannot be read: No such file"):
        read_key(tmp_path / "none")
    with pytest.raises(DecryptionError, match=f"{KEY_VARIABLE}: the key is not hexadecimal"):
        read_key(None, {KEY_VARIABLE: "xyz"})


def test_the_key_is_not_shown(tmp_path: Path) -> None:
    path = encrypted(tmp_path / "c.ckpt", "AES-GCM", b"0123456789abcdef")
    assert "0123456789abcdef" not in repr(read_index(path, b"0123456789abcdef"))
