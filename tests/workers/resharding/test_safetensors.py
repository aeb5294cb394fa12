from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from workers.resharding.checkpoint import open_checkpoint
from workers.resharding.checkpoint_file import read_index, write_checkpoint
from workers.resharding.errors import CheckpointFormatError
from workers.resharding.index import Chunk, SavedTensor

ARRAYS = {
    "float": np.linspace(-1, 1, 35, dtype=np.float32).reshape(5, 7),
    "scalar": np.array(3.5, np.float32),
    "long": np.arange(10),
    "half": np.arange(4, dtype=np.float16).reshape(2, 2),
    "bool": np.array([True, False]),
    "columns": np.asfortranarray(np.arange(6.0).reshape(2, 3)),
}


def file(folder: Path, header: Any, content: bytes) -> Path:
    text = header if isinstance(header, bytes) else json.dumps(header).encode()
    path = folder / "c.safetensors"
    path.write_bytes(len(text).to_bytes(8, "little") + text + content)
    return path


def entry(first: int, last: int, shape: list[int] | None = None, dtype: str = "U8") -> Any:
    shape = [last - first] if shape is None else shape
    return {"dtype": dtype, "shape": shape, "data_offsets": [first, last]}


def test_mindspore_and_its_own_library_read_what_was_written(tmp_path: Path) -> None:
    import mindspore
    import safetensors.numpy

    path = tmp_path / "c.safetensors"
    bits = np.array([[0x3F80, 0x4000]], np.uint16)  # 1, 2
    write_checkpoint(path, {**ARRAYS, "bfloat": bits}, {"bfloat": "BFloat16"})
    loaded = mindspore.load_checkpoint(str(path), format="safetensors")
    assert loaded.pop("bfloat").astype(mindspore.float32).asnumpy().tolist() == [[1, 2]]
    for name, array in ARRAYS.items():
        np.testing.assert_array_equal(loaded[name].asnumpy(), array, strict=True)
    write_checkpoint(path, ARRAYS)
    assert set(safetensors.numpy.load_file(path)) == set(ARRAYS)


@pytest.mark.parametrize("options", [{}, {"crc_check": True}, {"remove_redundancy": True}])
def test_what_mindspore_wrote_is_located(options: dict[str, bool], tmp_path: Path) -> None:
    import mindspore

    saved = [{"name": name, "data": mindspore.Tensor(array)} for name, array in ARRAYS.items()]
    path = tmp_path / "c.safetensors"
    mindspore.save_checkpoint(saved, str(path), format="safetensors", **options)
    index = read_index(path)
    content = path.read_bytes()
    assert (index.crc32 is not None) == ("crc_check" in options)
    for name, array in ARRAYS.items():
        (chunk,) = index.tensors[name].chunks
        assert index.tensors[name].dims == array.shape
        assert content[chunk.offset : chunk.offset + chunk.nbytes] == array.tobytes()


def test_int4_is_marked_beside_the_tensor(tmp_path: Path) -> None:
    header = {"__metadata__": {"w": "Int4"}, "w": entry(0, 3, dtype="I8"), "v": entry(3, 4)}
    tensors = read_index(file(tmp_path, header, b"1234")).tensors
    assert [tensor.dtype for tensor in tensors.values()] == ["Int4", "UInt8"]
    write_checkpoint(tmp_path / "w.safetensors", {"w": np.zeros(3, np.int8)}, {"w": "Int4"})
    assert read_index(tmp_path / "w.safetensors").tensors["w"].dtype == "Int4"


def test_a_type_that_nobody_knows_does_not_hide_the_others(tmp_path: Path) -> None:
    header = {"odd": entry(0, 2, [4], "F4"), "w": entry(2, 3)}
    tensors = read_index(file(tmp_path, header, b"123")).tensors
    assert tensors["odd"].dtype == "F4"
    start = tensors["w"].chunks[0].offset
    assert tensors["w"] == SavedTensor("UInt8", (1,), (Chunk(start, 1),))


def test_slices_in_safetensors_are_a_checkpoint_like_any_other(tmp_path: Path) -> None:
    for suffix in ("ckpt", "safetensors"):
        write_checkpoint(tmp_path / f"c.{suffix}", ARRAYS)
    one, other = (open_checkpoint(str(tmp_path / f"c.{s}")) for s in ("ckpt", "safetensors"))
    assert one.parameters == other.parameters


GOOD = {"a": entry(0, 4), "b": entry(4, 6)}


@pytest.mark.parametrize(
    ("header", "reason"),
    [
        (b"[", "the header is no JSON"),
        (b"[" * 100_000, "the header is no JSON"),
        (b"[]", "the header holds no object"),
        (b'{"a": 1, "a": 2}', "comes a second time"),
        ({"a": entry(0, 4), "b": entry(5, 6)}, "b does not begin where"),
        ({"a": entry(0, 4), "b": entry(3, 6)}, "b does not begin where"),
        ({"a": entry(0, 4)}, "the tensors end at byte"),
        ({"a": entry(0, 7)}, "the tensors end at byte"),
        ({"a": entry(0, 6, [2], "F32")}, r"a has 6 bytes, but Float32 of shape \[2\] takes 8"),
        ({"a": entry(0, 6, [1 << 62, 1 << 62])}, "a has 6 bytes"),
        ({"a": entry(0, 6, [-6])}, "the entry of 'a' is damaged"),
        ({"a": entry(0, 6, [6.0])}, "the entry of 'a' is damaged"),
        ({"a": entry(6, 0, [], "F4")}, "bytes"),
        ({"a": 3}, "the entry of 'a' is damaged"),
        ({"\ud800": entry(0, 6)}, "the name of a tensor is no text"),
        ({**GOOD, "__metadata__": []}, "holds no object"),
        ({**GOOD, "__metadata__": {"crc_num": "x"}}, "is no number"),
    ],
)
def test_a_damaged_header_is_refused(header: Any, reason: str, tmp_path: Path) -> None:
    with pytest.raises(CheckpointFormatError, match=reason):
        read_index(file(tmp_path, header, b"123456"))


def test_a_cut_file_is_refused_wherever_it_is_cut(tmp_path: Path) -> None:
    path = file(tmp_path, GOOD, b"123456")
    content = path.read_bytes()
    for length in range(len(content)):
        path.write_bytes(content[:length])
        with pytest.raises(CheckpointFormatError):
            read_index(path)
