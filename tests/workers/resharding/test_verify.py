from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from workers.resharding.checkpoint import SlicedCheckpoint, open_checkpoint
from workers.resharding.checkpoint_file import read_index
from workers.resharding.errors import ChecksumError, ReplicaMismatchError, SharedFileError
from workers.resharding.layout import Layout
from workers.resharding.verify import find_doubt, verify_crc, verify_replicas

Save = Callable[..., tuple[str, Path]]
W = np.arange(1 << 15, dtype=np.float32).reshape(256, 128)
COLUMNS = Layout.from_tensor_map((2, 2), (-1, 0))  # ranks 0, 2 and 1, 3 are replicas


@pytest.fixture
def saved(tmp_path: Path, save: Callable[..., tuple[str, Path]]) -> tuple[str, Path]:
    return save(tmp_path, {"w": W}, {"w": COLUMNS})


def flip(path: Path, place: int) -> None:
    content = bytearray(path.read_bytes())
    content[place] ^= 16
    path.write_bytes(content)


def flip_in_slice(saved: tuple[str, Path], rank: int, byte: int) -> SlicedCheckpoint:
    path = Path(saved[0].format(rank=rank))
    flip(path, read_index(path).tensors["w"].chunks[0].offset + byte)
    return open_checkpoint(*saved)


def test_replicas_that_are_equal_pass(saved: tuple[str, Path]) -> None:
    for full in (False, True):
        assert verify_replicas(open_checkpoint(*saved), full) == 2


def test_the_first_byte_that_differs_is_named(saved: tuple[str, Path]) -> None:
    checkpoint = flip_in_slice(saved, 3, 50_001)
    with pytest.raises(ReplicaMismatchError, match="w: .*rank_1.* and .*rank_3.* byte 50001") as e:
        verify_replicas(checkpoint, full=True)
    assert e.value.offset == 50_001


def test_samples_are_taken_from_the_beginning_to_the_end(saved: tuple[str, Path]) -> None:
    with pytest.raises(ReplicaMismatchError):
        verify_replicas(flip_in_slice(saved, 2, W.nbytes // 2 - 1))
    with pytest.raises(ReplicaMismatchError):
        verify_replicas(flip_in_slice(saved, 2, 0))


@pytest.mark.parametrize("suffix", ["ckpt", "safetensors"])
def test_a_flipped_bit_shows_in_the_checksum_and_in_nothing_else(
    suffix: str, tmp_path: Path
) -> None:
    import mindspore

    path = tmp_path / f"c.{suffix}"
    tensors = [{"name": name, "data": mindspore.Tensor(W)} for name in ("w", "a")]
    mindspore.save_checkpoint(tensors, str(path), crc_check=True, format=suffix)
    path.chmod(0o600)
    assert verify_crc(open_checkpoint(str(path))) == 1
    flip(path, read_index(path).tensors["w"].chunks[0].offset + 1000)
    checkpoint = open_checkpoint(str(path))
    with pytest.raises(ChecksumError, match=f"c.{suffix}: the content has the CRC-32"):
        verify_crc(checkpoint)


def test_files_without_a_checksum_are_not_counted(saved: tuple[str, Path]) -> None:
    assert verify_crc(open_checkpoint(*saved)) == 0


def test_files_in_the_wrong_order_are_doubted_without_being_asked(saved: tuple[str, Path]) -> None:
    assert find_doubt(open_checkpoint(*saved)) is None
    one, other = (Path(saved[0].format(rank=rank)) for rank in (0, 1))
    content = one.read_bytes()
    one.write_bytes(other.read_bytes())
    other.write_bytes(content)
    doubt = find_doubt(open_checkpoint(*saved))
    assert isinstance(doubt, ReplicaMismatchError) and doubt.offset == 2  # 0 and 64


def test_a_copy_of_the_file_of_another_rank_is_doubted(tmp_path: Path, save: Save) -> None:
    rows = Layout((4,), ((0,), ()))  # no replicas: only the content tells
    pattern, strategy = save(tmp_path, {"w": W, "one": W * 0 + 1}, {"w": rows, "one": rows})
    assert find_doubt(open_checkpoint(pattern, strategy)) is None
    source, copy = Path(pattern.format(rank=1)), Path(pattern.format(rank=3))
    copy.write_bytes(source.read_bytes())
    doubt = find_doubt(open_checkpoint(pattern, strategy))
    assert isinstance(doubt, SharedFileError) and (doubt.first, doubt.second) == (1, 3)


def test_copies_are_doubted_although_the_largest_parameter_is_constant(
    tmp_path: Path, save: Save
) -> None:
    rows = Layout((4,), ((0,), ()))
    tensors = {"w": W[:128], "zero": W * 0}
    pattern, strategy = save(tmp_path, tensors, dict.fromkeys(tensors, rows))
    source, copy = Path(pattern.format(rank=1)), Path(pattern.format(rank=3))
    copy.write_bytes(source.read_bytes())
    doubt = find_doubt(open_checkpoint(pattern, strategy))
    assert isinstance(doubt, SharedFileError) and doubt.parameter == "w"


def test_the_wrong_order_is_doubted_although_no_large_parameter_has_replicas(
    tmp_path: Path, save: Save
) -> None:
    # As tensor parallelism has it: each rank has its own part of a weight, two have one of a bias.
    layouts = {name: Layout((2, 2), ((0, 1), ())) for name in "abcdef"}
    tensors = {name: W + n for n, name in enumerate(layouts)}
    layouts["bias"], tensors["bias"] = Layout((2, 2), ((1,),)), W[0]
    pattern, strategy = save(tmp_path, tensors, layouts)
    assert find_doubt(open_checkpoint(pattern, strategy)) is None
    one, other = (Path(pattern.format(rank=rank)) for rank in (0, 1))
    content = one.read_bytes()
    one.write_bytes(other.read_bytes())
    other.write_bytes(content)
    doubt = find_doubt(open_checkpoint(pattern, strategy))
    assert isinstance(doubt, ReplicaMismatchError) and doubt.parameter == "bias"
