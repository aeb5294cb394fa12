from __future__ import annotations

import os
import zlib
from collections.abc import Mapping
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from workers.resharding import wire
from workers.resharding.checkpoint_file import Chunk, SavedTensor, read_index, write_checkpoint
from workers.resharding.errors import (
    CheckpointFormatError,
    EncryptedCheckpointError,
    UnreadableFileError,
)


def value(name: str, dtype: str, dims: list[int], content: bytes, packed: bool = False) -> bytes:
    """Write one parameter field by field, as the format is documented."""
    if packed:
        shape = wire.bytes_field(1, b"".join(map(wire.varint, dims)))
    else:
        shape = b"".join(wire.number_field(1, size) for size in dims)
    tensor = shape + wire.bytes_field(2, dtype.encode()) + wire.bytes_field(3, content)
    return wire.bytes_field(1, wire.bytes_field(1, name.encode()) + wire.bytes_field(2, tensor))


def index_of(content: bytes, folder: Path) -> Mapping[str, SavedTensor]:
    (folder / "c.ckpt").write_bytes(content)
    return read_index(folder / "c.ckpt").tensors


def test_a_tensor_is_located_by_its_bytes(tmp_path: Path) -> None:
    content = value("w", "Float32", [2, 3], bytes(range(24)))
    tensors = index_of(content, tmp_path)
    start = content.index(bytes(range(24)))
    assert tensors == {"w": SavedTensor("Float32", (2, 3), (Chunk(start, 24),))}


def test_chunks_of_a_parameter_are_neighbours_that_carry_the_same_dims(tmp_path: Path) -> None:
    one, two = (value("w", "Float32", [3, 2], bytes(n)) for n in (16, 8))
    (tensor,) = index_of(one + two, tmp_path).values()
    assert tensor.dims == (3, 2)
    assert [chunk.nbytes for chunk in tensor.chunks] == [16, 8]


def test_a_scalar_has_no_dims_or_as_mindspore_2_0_wrote_it_one_of_size_0(tmp_path: Path) -> None:
    content = value("new", "Int64", [], bytes(8)) + value("old", "Int64", [0], bytes(8))
    content += value("none", "Int64", [0], b"")
    tensors = index_of(content, tmp_path)
    assert [tensor.dims for tensor in tensors.values()] == [(), (), (0,)]


def test_packed_dims_are_read(tmp_path: Path) -> None:
    assert index_of(value("w", "Int8", [2, 200], bytes(400), packed=True), tmp_path)["w"].dims == (
        2,
        200,
    )


def test_fields_come_in_any_order_and_unknown_ones_are_skipped(tmp_path: Path) -> None:
    unknown = b"\x7d1234" + b"\x79abcdefgh" + wire.number_field(300, -1) + wire.bytes_field(9, W)
    dim = wire.number_field(1, 2)
    tensor = wire.bytes_field(3, b"12345678") + dim + unknown + wire.bytes_field(2, b"Int16") + dim
    content = wire.bytes_field(1, unknown + wire.bytes_field(2, tensor) + wire.bytes_field(1, b"w"))
    tensors = index_of(content, tmp_path)
    assert tensors == {"w": SavedTensor("Int16", (2, 2), (Chunk(content.index(b"12345678"), 8),))}


@pytest.mark.parametrize("length", [900, 1100, 60_000])
def test_long_names_are_read(length: int, tmp_path: Path) -> None:
    names = [letter * length for letter in "abc"]
    content = b"".join(value(name, "Int8", [1], b"1") for name in names)
    assert list(index_of(content, tmp_path)) == names


def test_a_crc_footer_is_no_tensor(tmp_path: Path) -> None:
    content = value("w", "Float32", [2], bytes(8))
    crc32 = zlib.crc32(content)
    (tmp_path / "c.ckpt").write_bytes(content + b"crc_num" + crc32.to_bytes(10, "big"))
    index = read_index(tmp_path / "c.ckpt")
    assert list(index.tensors) == ["w"]
    assert index.crc32 == crc32


def test_entries_that_nobody_can_load_do_not_hide_the_others(tmp_path: Path) -> None:
    text = "ünï".encode("utf-32-le")
    map_tensor = wire.bytes_field(1, wire.bytes_field(1, b"map") + wire.bytes_field(3, b""))
    content = value("note", "str", [0], text) + map_tensor + value("w", "Int8", [1], b"1")
    assert [tensor.dtype for tensor in index_of(content, tmp_path).values()] == [
        "str",
        "MapTensor",
        "Int8",
    ]


W = value("w", "Int8", [1], b"1")


def tensor(fields: bytes) -> bytes:
    """Write a parameter of these fields."""
    return wire.bytes_field(1, wire.bytes_field(1, b"w") + wire.bytes_field(2, fields))


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (b"", "the file is empty"),
        (value("w", "Float32", [3], bytes(8)), r"w has 8 bytes, but Float32 of .*\[3\] takes 12"),
        (value("w", "Float32", [3], bytes(16)), "w has 16 bytes"),
        (value("w", "Int32", [1], bytes(3)) + value("w", "Int32", [1], b"1"), "w has 4 bytes"),
        (W * 2, "w has 2 bytes"),
        (W + value("v", "Int8", [1], b"1") + W, "w comes a second time"),
        (value("w", "Int8", [2], b"1") + value("w", "Int16", [2], b"123"), "w comes a second time"),
        (value("w", "Int8", [-1], b"1"), r"impossible shape \[-1\]"),
        (value("w", "Int8", [1] * 40, b"1"), "impossible shape"),
        (value("w", "Int8", [1] * 40, b"1", packed=True), "more than 32 numbers"),
        (tensor(wire.bytes_field(1, b"\x80")), "a number does not end"),
        (tensor(b"\x0d1234"), "field 1 holds no numbers"),
        (tensor(wire.number_field(2, 1)), "field 2 is no short text"),
        (wire.bytes_field(1, wire.number_field(1, 1)), "field 1 is no short text"),
        (value("w" * 70_000, "Int8", [1], b"1"), "field 1 is no short text"),
        (wire.bytes_field(1, wire.bytes_field(2, b"")), "has no name"),
        (wire.bytes_field(1, wire.bytes_field(1, b"\xff")), "not UTF-8"),
        (wire.number_field(1, 2), "is it a strategy file"),
        (b"\x0a\x7fshort", "122 bytes of field 1 are missing"),
    ],
)
def test_a_damaged_file_is_refused_with_the_place(
    content: bytes, reason: str, tmp_path: Path
) -> None:
    with pytest.raises(CheckpointFormatError, match=rf"c.ckpt: .*{reason}.* \(byte \d+\)"):
        index_of(content, tmp_path)


@pytest.mark.parametrize(
    ("magic", "cipher"), [(0x7F3A5ED8, "AES-GCM"), (0x7F3A5ED9, "AES-CBC"), (0x7F3A5EDA, "SM4-CBC")]
)
def test_an_encrypted_file_is_called_by_its_name(magic: int, cipher: str, tmp_path: Path) -> None:
    with pytest.raises(EncryptedCheckpointError, match=f"encrypted .{cipher}."):
        index_of(magic.to_bytes(4, "little") + bytes(60), tmp_path)


def test_what_cannot_be_opened_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UnreadableFileError, match="no.ckpt: cannot be read: No such file"):
        read_index(tmp_path / "no.ckpt")
    with pytest.raises(UnreadableFileError, match="Is a directory"):
        read_index(tmp_path)


def test_a_cut_file_is_refused_unless_the_cut_is_between_two_parameters(tmp_path: Path) -> None:
    parts = [value(name, "Float32", [4], bytes(16)) for name in ("a", "b", "c")]
    content = b"".join(parts)
    between = {len(parts[0]): ["a"], len(parts[0] + parts[1]): ["a", "b"]}
    for length in range(len(content)):
        if length in between:
            assert list(index_of(content[:length], tmp_path)) == between[length]
        else:
            with pytest.raises(CheckpointFormatError):
                index_of(content[:length], tmp_path)


@given(st.integers(0, 10**6), st.integers(1, 255))
def test_a_damaged_byte_is_an_error_or_leaves_an_index_inside_the_file(
    tmp_path_factory: pytest.TempPathFactory, place: int, flip: int
) -> None:
    content = bytearray(value("a", "Float32", [2, 2], bytes(16)) + value("b", "Int8", [3], b"123"))
    content[place % len(content)] ^= flip
    path = tmp_path_factory.getbasetemp() / "damaged.ckpt"
    path.write_bytes(content)
    try:
        tensors = read_index(path).tensors
    except (CheckpointFormatError, EncryptedCheckpointError):
        return
    chunks = [chunk for tensor in tensors.values() for chunk in tensor.chunks]
    assert all(chunk.offset + chunk.nbytes <= len(content) for chunk in chunks)


ARRAYS: Mapping[str, np.ndarray] = {
    "float": np.linspace(-1, 1, 35, dtype=np.float32).reshape(5, 7),
    "scalar": np.array(3.5, np.float32),
    "long": np.arange(10),
    "half": np.arange(4, dtype=np.float16).reshape(2, 2),
    "bool": np.array([True, False]),
    "columns": np.asfortranarray(np.arange(6.0).reshape(2, 3)),
    "strided": np.arange(12, dtype=np.int32).reshape(3, 4)[:, ::2],
    "bfloat": np.array([[0x3F80, 0x4000], [0xBF80, 0]], np.uint16),  # 1, 2, -1, 0
    "empty": np.zeros((0, 4), np.float32),
}


@pytest.mark.parametrize("chunk_nbytes", [512 << 20, 8])
def test_mindspore_reads_what_was_written(chunk_nbytes: int, tmp_path: Path) -> None:
    import mindspore

    write_checkpoint(tmp_path / "c.ckpt", ARRAYS, {"bfloat": "BFloat16"}, chunk_nbytes)
    loaded = mindspore.load_checkpoint(str(tmp_path / "c.ckpt"))
    assert list(loaded) == list(ARRAYS)
    bfloat = loaded.pop("bfloat").astype(mindspore.float32).asnumpy()
    assert bfloat.tolist() == [[1, 2], [-1, 0]]
    for name, parameter in loaded.items():
        np.testing.assert_array_equal(parameter.asnumpy(), ARRAYS[name], strict=True)


def test_what_mindspore_wrote_is_located(tmp_path: Path) -> None:
    import mindspore

    # With checksum, entries that are no tensor, and all that MindSpore calls a parameter.
    tensors = {name: array for name, array in ARRAYS.items() if name not in ("bfloat", "empty")}
    saved = [{"name": name, "data": mindspore.Tensor(array)} for name, array in tensors.items()]
    path = tmp_path / "c.ckpt"
    mindspore.save_checkpoint(
        saved, str(path), crc_check=True, append_dict={"epoch_num": 3, "note": "x"}
    )
    index = read_index(path)
    content = path.read_bytes()
    assert index.crc32 == zlib.crc32(content[:-17])
    assert index.tensors["epoch_num"].dims == ()
    for name, array in tensors.items():
        (chunk,) = index.tensors[name].chunks
        assert index.tensors[name].dims == array.shape
        assert content[chunk.offset : chunk.offset + chunk.nbytes] == array.tobytes()


def test_an_array_under_the_name_of_another_type_is_not_written(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="w: float32 does not hold the bits of BFloat16"):
        write_checkpoint(tmp_path / "c.ckpt", {"w": np.zeros(2, np.float32)}, {"w": "BFloat16"})
    with pytest.raises(ValueError, match="no name for elements"):
        write_checkpoint(tmp_path / "c.ckpt", {"w": np.array(["text"])})
    assert list(tmp_path.iterdir()) == []  # no half-written file, no temporary one


def test_a_pipe_is_refused_and_not_waited_for(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe.ckpt")
    with pytest.raises(UnreadableFileError, match="it is a pipe"):
        read_index(tmp_path / "pipe.ckpt")


@pytest.mark.parametrize("suffix", ["ckpt", "safetensors"])
def test_a_file_that_is_cut_while_its_index_is_read_is_refused(
    suffix: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path, pread = tmp_path / f"net.{suffix}", os.pread
    write_checkpoint(path, {f"w{number}": np.ones(8) for number in range(50)})

    def cut_and_read(descriptor: int, nbytes: int, offset: int) -> bytes:
        os.truncate(path, 2000)
        return pread(descriptor, nbytes, offset)

    monkeypatch.setattr(os, "pread", cut_and_read)
    with pytest.raises(CheckpointFormatError, match="the file ends here"):
        read_index(path)


def test_a_file_of_more_parameters_than_anybody_has_is_damage(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("workers.resharding.ckpt_format._MOST_VALUES", 3)
    content = [value(name, "Int8", [1], b"1") for name in "abcd"]
    assert len(index_of(b"".join(content[:3]), tmp_path)) == 3
    with pytest.raises(CheckpointFormatError, match="more than 3 parameters"):
        index_of(b"".join(content), tmp_path)
