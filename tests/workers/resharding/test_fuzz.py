"""Hostile bytes end in one of our own errors, within bounded memory, and never in a crash.

FUZZ_INPUTS=1000000 pytest --timeout 0 tests/workers/resharding/test_fuzz.py runs as many inputs.
"""

from __future__ import annotations

import json
import os
import random
from collections.abc import Callable
from pathlib import Path

import pytest

from workers.resharding import ckpt_format, safetensors_format, wire
from workers.resharding.encryption import cipher_mode, read_cipher
from workers.resharding.errors import ReshardError
from workers.resharding.index import SavedTensor
from workers.resharding.strategy_file import decode_strategy, parse_document
from workers.resharding.wire import WireError

INPUTS = int(os.environ.get("FUZZ_INPUTS", "4000"))  # of all readers together
FIXTURES = Path(__file__).parents[2] / "fixtures"
HOSTILE = [
    b"\xff" * 10,
    b"\xff\xff\xff\xff\xff\xff\xff\xff\x7f",
    b"\x80" * 9 + b"\x01",
    b"\x00" * 8,
    b"[" * 2000,
    b'{"a":' * 500,
    b"9" * 5000,
    b"-1",
    b"1e999",
    b"null",
    b"\xed\xa0\x80",
]


def checkpoint(content: bytes) -> None:
    check_tensors(ckpt_format.read_tensors(content, len(content))[0], len(content))


def safetensors(content: bytes) -> None:
    check_tensors(safetensors_format.read_tensors(content, len(content))[0], len(content))


def check_tensors(tensors: dict[str, SavedTensor], size: int) -> None:
    for tensor in tensors.values():
        for chunk in tensor.chunks:
            assert 0 <= chunk.offset <= chunk.offset + chunk.nbytes <= size


def strategy(content: bytes) -> None:
    for _, layout in parse_document(decode_strategy(content, "f"), "f"):
        if layout.stage_size <= 64 and len(layout.axes) <= 8:
            shape = layout.full_shape((max(layout.field_size, 1),) * len(layout.axes))
            if max(shape, default=0) < 1 << 40 and layout.field_size < 64:
                layout.boxes(min(layout.ranks), shape)


def encrypted(content: bytes) -> None:
    mode = cipher_mode(content, len(content))
    if mode is not None:
        read_cipher(content, len(content), mode, "f", bytes(16))


def seeds(reader: Callable[[bytes], None]) -> list[bytes]:
    value = wire.bytes_field(1, wire.bytes_field(1, b"map") + wire.bytes_field(3, b"x"))
    compiled = FIXTURES / "compiled"
    case = FIXTURES / "layout_two_axes"
    tensor = {"dtype": "I8", "shape": [2, 2], "data_offsets": [0, 4]}
    header = {"__metadata__": {"crc_num": "1", "w": "Int4"}, "w": tensor}
    text = json.dumps(header).encode()
    block = b"\xd9\x5e\x3a\x7f" + (40).to_bytes(4, "little") + (16).to_bytes(4, "little")
    (saved,) = case.glob("train/slices/rank_0/*.ckpt")
    found = {
        checkpoint: [saved.read_bytes() + value + b"crc_num" + bytes(10)],
        safetensors: [len(text).to_bytes(8, "little") + text + b"1234"],
        strategy: [
            (compiled / "out_layinfer" / "s0.ckpt").read_bytes(),
            (compiled / "out_layinfer" / "s0.json").read_bytes(),
            (compiled / "pp_merged.ckpt").read_bytes(),
            (case / "layouts.json").read_bytes(),
        ],
        encrypted: [block + bytes(16) + (16).to_bytes(4, "little") + bytes(16)],
    }
    return found[reader]


def mutated(content: bytes, others: list[bytes], chance: random.Random) -> bytes:
    data = bytearray(content)
    for _ in range(chance.choice((1, 1, 2, 4, 16))):
        place = chance.randrange(len(data) + 1)
        match chance.randrange(8):
            case 0 | 1 if data:
                data[place % len(data)] ^= 1 << chance.randrange(8)
            case 2 if data:
                data[place % len(data)] = chance.randrange(256)
            case 3:
                del data[place : place + chance.choice((1, 2, 7, 100))]
            case 4:
                data[place:place] = chance.choice(HOSTILE)
            case 5:
                hostile = chance.choice(HOSTILE)
                data[place : place + len(hostile)] = hostile
            case 6:
                other = chance.choice(others)
                start = chance.randrange(len(other))
                data[place:place] = other[start : start + chance.choice((3, 30, 300))]
            case 7 if chance.random() < 0.2:
                del data[place:]
    return bytes(data)


@pytest.mark.parametrize("reader", [checkpoint, safetensors, strategy, encrypted])
def test_hostile_bytes_end_in_an_error_of_ours(reader: Callable[[bytes], None]) -> None:
    chance = random.Random(reader.__name__)
    pool = list(originals := seeds(reader))
    for content in originals:
        try:
            reader(content)
        except ReshardError:
            assert reader is encrypted  # the seed is encrypted with another key
    accepted = 0
    for _ in range(INPUTS // 4):
        content = mutated(chance.choice(pool), originals, chance)
        try:
            reader(content)
            accepted += 1
            if len(pool) < 200 and len(content) < 20_000:
                pool.append(content)  # mutate it further
        except (WireError, ReshardError):
            pass
    assert accepted < INPUTS // 4
