"""Slices behind URLs: the same tensors as from files, for few bytes."""

from __future__ import annotations

import asyncio
import hashlib
import threading

import numpy as np
import pytest

from workers.resharding.checkpoint import open_checkpoint
from workers.resharding.checkpoint_file import write_checkpoint
from workers.resharding.digests import verify_sha256
from workers.resharding.errors import (
    CheckpointFormatError,
    ChecksumError,
    FileChangedError,
    MissingRankError,
    RankCountError,
    StrategyFileError,
)
from workers.resharding.execute import execute
from workers.resharding.layout import Layout
from workers.resharding.plan import plan_rank
from workers.resharding.remote.errors import DigestError, RemoteError
from workers.resharding.remote.mirror import GAP_NBYTES
from workers.resharding.strategy_file import read_strategy_file
from workers.resharding.verify import verify_crc, verify_replicas

COLUMNS = Layout((2, 4), ((), (1,)))  # on 8 ranks, each half of them has all
ROWS = Layout((8,), ((0,), ()))


@pytest.fixture
def tensors():
    random = np.random.default_rng(0)
    return {
        "w": random.random((512, 1024), np.float32),
        "v": random.random((1024, 512), np.float32),
        "b": random.random(8, np.float32),
    }


@pytest.fixture
def trained(server, save, tensors):
    """Slices in columns on the server; returns the pattern and the strategy as URLs."""
    layouts = {"w": COLUMNS, "v": COLUMNS, "b": Layout((8,), ((),))}
    save(server.folder, tensors, layouts)
    return server.url("rank_{rank}/net-1_10.ckpt"), server.url("strategy.ckpt")


def load(pattern, strategy, cache, wanted, rank):
    plan = plan_rank(open_checkpoint(pattern, strategy, None, cache), wanted, rank)
    return plan, execute(plan)


def test_every_rank_gets_its_slices(trained, tensors, want, cache):
    wanted = {"w": want((512, 1024), ROWS), "v": want((1024, 512), ROWS)}
    wanted["b"] = want((8,), Layout((8,), ((),)))
    for rank in range(8):
        _, arrays = load(*trained, cache, wanted, rank)
        for name in ("w", "v"):
            box = ROWS.region(rank, tensors[name].shape).as_slices()
            np.testing.assert_array_equal(arrays[name], tensors[name][box])
        np.testing.assert_array_equal(arrays["b"], tensors["b"])


def test_a_rank_fetches_what_its_plan_reads_and_little_more(server, trained, want, cache):
    wanted = {"w": want((512, 1024), ROWS)}
    checkpoint = open_checkpoint(*trained, None, cache)
    headers = server.nbytes
    plan = plan_rank(checkpoint, wanted, 3)
    execute(plan)
    assert plan.bytes_to_read == 512 * 1024 * 4 // 8
    # A few bytes came with the headers already.
    assert plan.bytes_to_read - 4096 < server.nbytes - headers <= plan.bytes_to_read
    files = sum(file.stat().st_size for file in server.folder.rglob("*.ckpt"))
    assert headers < files / 10


def test_while_it_waits_for_files_a_rank_hears_how_far_it_is(
    server, trained, want, cache, monkeypatch
):
    monkeypatch.setattr("workers.resharding.remote.planned._WATCH_S", 0.01)
    checkpoint = open_checkpoint(*trained, None, cache)
    plan = plan_rank(checkpoint, {"w": want((512, 1024), ROWS)}, 0)
    told = []
    heard = threading.Event()

    async def hold_back_the_second(request):
        while len(server.data) > asked + 1 and not heard.is_set():
            await asyncio.sleep(0.001)

    def watch(nbytes, total):
        told.append((nbytes, total))
        if 0 < nbytes < total:
            heard.set()

    asked = len(server.data)
    server.always = hold_back_the_second
    execute(plan, watch)
    assert heard.is_set() and all(total == plan.bytes_to_read for _, total in told)
    assert told == sorted(set(told))


def test_gaps_are_fetched_along_only_if_they_are_small(server, save, want, cache):
    # Rows of 1 MiB: a quarter of each is wanted, gaps are larger than what is worth fetching.
    wide = np.random.default_rng(0).random((4, 1 << 18), np.float32)
    save(server.folder, {"w": wide}, {"w": Layout((1,), ((), ()))})
    url = server.url("rank_0/net-1_10.ckpt")
    quarter = Layout((4,), ((), (0,)))
    assert 3 << 18 > GAP_NBYTES
    checkpoint = open_checkpoint(url, None, None, cache)
    headers = server.nbytes
    arrays = execute(plan_rank(checkpoint, {"w": want(wide.shape, quarter)}, 1))
    np.testing.assert_array_equal(arrays["w"], wide[:, 1 << 16 : 2 << 16])
    assert wide.nbytes // 4 - (32 << 10) <= server.nbytes - headers <= wide.nbytes // 4


@pytest.mark.parametrize("name", ["net-1_10.ckpt", "net-1_10.safetensors"])
def test_one_file_of_whole_tensors(server, tensors, want, cache, name):
    write_checkpoint(server.folder / name, tensors)
    _, arrays = load(server.url(name), None, cache, {"v": want((1024, 512))}, 0)
    np.testing.assert_array_equal(arrays["v"], tensors["v"])


def test_a_folder_that_the_server_lists(server, trained, want, tensors, cache):
    wanted = {"w": want((512, 1024))}
    _, arrays = load(server.url(""), trained[1], cache, wanted, 0)
    np.testing.assert_array_equal(arrays["w"], tensors["w"])


def test_a_missing_rank_is_named(server, trained, cache):
    (server.folder / "rank_5" / "net-1_10.ckpt").unlink()
    with pytest.raises(MissingRankError, match="rank 5: nothing matches http://.*/rank_5/") as told:
        open_checkpoint(trained[0] + "?token=s3cret", trained[1] + "?token=s3cret", None, cache)
    assert "s3cret" not in str(told.value)


def test_more_ranks_than_the_strategy_knows(server, trained, cache):
    (server.folder / "rank_8").mkdir()
    (server.folder / "rank_0" / "net-1_10.ckpt").rename(server.folder / "rank_8" / "net-1_10.ckpt")
    write_checkpoint(server.folder / "rank_0" / "net-1_10.ckpt", {"b": np.zeros(8, np.float32)})
    with pytest.raises(RankCountError, match="rank_8"):
        open_checkpoint(*trained, None, cache)


def test_a_file_that_changes_between_index_and_data(server, trained, want, cache):
    checkpoint = open_checkpoint(*trained, None, cache)
    plan = plan_rank(checkpoint, {"w": want((512, 1024), ROWS)}, 0)
    with (server.folder / "rank_1" / "net-1_10.ckpt").open("ab") as file:
        file.write(b"more")
    with pytest.raises(FileChangedError, match=r"rank_1/net-1_10.ckpt has changed"):
        execute(plan)


def test_a_cache_on_a_network_file_system_is_read_without_mapping(
    trained, tensors, want, cache, monkeypatch
):
    monkeypatch.setattr("workers.resharding.file_bytes.is_local", lambda path: False)
    _, arrays = load(*trained, cache, {"v": want((1024, 512), ROWS)}, 2)
    np.testing.assert_array_equal(arrays["v"], tensors["v"][256:384])


def test_a_checksum_in_a_file_is_compared(server, tensors, cache):
    import mindspore

    saved = [{"name": name, "data": mindspore.Tensor(t)} for name, t in tensors.items()]
    mindspore.save_checkpoint(saved, str(server.folder / "crc.ckpt"), crc_check=True)
    assert verify_crc(open_checkpoint(server.url("crc.ckpt"), None, None, cache)) == 1
    with (server.folder / "crc.ckpt").open("r+b") as file:
        file.seek(1 << 20)
        file.write(b"damaged")
    with pytest.raises(ChecksumError, match="crc.ckpt: the content has the CRC-32"):
        verify_crc(open_checkpoint(server.url("crc.ckpt"), None, None, cache))


def test_files_are_compared_with_the_sha256_beside_them(server, trained, cache):
    files = [server.folder / f"rank_{rank}" / "net-1_10.ckpt" for rank in range(8)]
    for file in files:
        digest = hashlib.sha256(file.read_bytes()).hexdigest()
        file.with_name(f"{file.name}.sha256").write_text(f"{digest}  {file.name}\n")
    local = open_checkpoint(str(server.folder), server.folder / "strategy.ckpt")
    assert verify_sha256(local) == verify_sha256(open_checkpoint(*trained, None, cache)) == 8
    beside = files[3].with_name("net-1_10.ckpt.sha256")
    beside.write_text("0" * 64 + "\n")
    for checkpoint in (local, open_checkpoint(*trained, None, cache)):
        with pytest.raises(DigestError, match=r"rank_3/net-1_10.ckpt: the content has the SHA-256"):
            verify_sha256(checkpoint)
    beside.write_text("none\n")
    with pytest.raises(RemoteError, match="does not begin with a SHA-256"):
        verify_sha256(local)
    beside.unlink()
    for checkpoint in (local, open_checkpoint(*trained, None, cache)):
        with pytest.raises(RemoteError, match="ckpt.sha256: no such file .* leave sha256 out"):
            verify_sha256(checkpoint)


def test_replicas_are_compared(trained, cache):
    assert verify_replicas(open_checkpoint(*trained, None, cache), full=True) == 4 + 4 + 7


def test_a_second_run_fetches_nothing(server, trained, want, cache):
    wanted = {"w": want((512, 1024), ROWS)}
    load(*trained, cache, wanted, 0)
    server.asked.clear()
    load(*trained, cache, wanted, 0)
    assert server.data == []


def test_what_is_no_checkpoint_is_named_by_its_url(server, cache):
    (server.folder / "page.ckpt").write_bytes(b"<html>" * 100)
    with pytest.raises(CheckpointFormatError, match="^http://.*/page.ckpt: "):
        open_checkpoint(server.url("page.ckpt"), None, None, cache)


def test_strategies_of_several_stages(server, fixtures, cache):
    stages = fixtures / "two_stage_mlp" / "train" / "stages"
    for file in stages.iterdir():
        (server.folder / file.name).write_bytes(file.read_bytes())
    assert read_strategy_file(server.url(""), cache) == read_strategy_file(stages)
    with pytest.raises(StrategyFileError, match="there is no such file"):
        read_strategy_file(server.url("none.ckpt"), cache)


def test_encrypted_files(server, tensors, want, cache):
    import mindspore

    key = b"0123456789abcdef"
    for folder, names in (("a", ("w",)), ("b", ("v", "b"))):
        plain = [{"name": name, "data": mindspore.Tensor(tensors[name])} for name in names]
        path = str(server.folder / f"{folder}.ckpt")
        mindspore.save_checkpoint(plain, path, enc_key=key, enc_mode="AES-GCM")
    checkpoint = open_checkpoint(server.url("*.ckpt"), None, key, cache)
    wanted = {name: want(tensor.shape) for name, tensor in tensors.items()}
    for name, array in execute(plan_rank(checkpoint, wanted, 0)).items():
        np.testing.assert_array_equal(array, tensors[name])
