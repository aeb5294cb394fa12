"""Byte ranges from a real S3 server (moto) on loopback."""

from __future__ import annotations

from collections.abc import Iterator

import aiohttp
import boto3
import numpy as np
import pytest
from aiohttp import web
from moto.server import ThreadedMotoServer

from workers.resharding.checkpoint import open_checkpoint
from workers.resharding.errors import FileChangedError, MissingRankError
from workers.resharding.execute import execute
from workers.resharding.layout import Layout
from workers.resharding.plan import plan_rank
from workers.resharding.remote import store
from workers.resharding.remote.address import RemoteFile
from workers.resharding.remote.errors import NoSuchFileError
from workers.resharding.remote.mirror import open_mirror
from workers.resharding.strategy_file import read_strategy_file

BODY = bytes(range(1, 251)) * 4096
ROWS, COLUMNS = Layout((4,), ((0,), ())), Layout((4,), ((), (0,)))


@pytest.fixture(scope="module")
def endpoint() -> Iterator[str]:
    server = ThreadedMotoServer("127.0.0.1", 0, verbose=False)
    server.start()
    host, port = server.get_host_and_port()
    yield f"http://{host}:{port}"
    server.stop()


@pytest.fixture
def bucket(endpoint, monkeypatch):
    """An empty bucket named train."""
    monkeypatch.setenv("AWS_ENDPOINT_URL", endpoint)
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "one")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "two")
    monkeypatch.setenv("AWS_DEFAULT_REGION", "us-east-1")
    store._filesystem.cache_clear()
    bucket = boto3.resource("s3").create_bucket(Bucket="train")
    yield bucket
    bucket.objects.all().delete()
    bucket.delete()
    store._filesystem.cache_clear()


@pytest.fixture
def whole(bucket, save, tmp_path):
    """The tensor of which slices of two steps, and a strategy, are in the bucket."""
    tensor = np.random.default_rng(0).random((512, 1024), np.float32)
    for name, content in (("net-1_10.ckpt", tensor), ("net-1_9.ckpt", tensor * 0)):
        save(tmp_path / "run", {"w": content}, {"w": COLUMNS}, name)
    for file in (tmp_path / "run").rglob("*.ckpt"):
        bucket.upload_file(str(file), f"run/{file.relative_to(tmp_path / 'run')}")
    return tensor


@pytest.mark.parametrize(
    "pattern", ["run", "run/rank_{rank}/*.ckpt", "run/rank_{rank}/net-1_10.ckpt"]
)
def test_folders_globs_and_names_find_the_slices_of_the_newest_step(whole, pattern, want, cache):
    strategy = "s3://train/run/strategy.ckpt"
    checkpoint = open_checkpoint(f"s3://train/{pattern}", strategy, None, cache)
    assert str(checkpoint.files[2].path) == "s3://train/run/rank_2/net-1_10.ckpt"
    arrays = execute(plan_rank(checkpoint, {"w": want((512, 1024), ROWS)}, 1))
    np.testing.assert_array_equal(arrays["w"], whole[128:256])


def test_an_object_that_is_not_there(bucket, whole, cache):
    with pytest.raises(NoSuchFileError, match="^s3://train/none.bin: there is no such file"):
        with open_mirror(RemoteFile.parse("s3://train/none.bin", cache)):
            pass
    with pytest.raises(MissingRankError, match="rank 0, 1, 2, 3"):
        open_checkpoint("s3://train/no/rank_{rank}/*", "s3://train/run/strategy.ckpt", None, cache)
    assert read_strategy_file("s3://train/run/strategy.ckpt", cache) == {"w": COLUMNS}


def test_an_object_that_changes_between_two_ranges(bucket, cache):
    bucket.put_object(Key="net.bin", Body=b"a" * 1000)
    with open_mirror(RemoteFile.parse("s3://train/net.bin", cache)) as mirror:
        assert mirror[0:4] == b"aaaa"
        bucket.put_object(Key="net.bin", Body=b"b" * 1000)
        with pytest.raises(FileChangedError, match="^s3://train/net.bin has changed"):
            mirror.ensure([(500, 600)])


@pytest.fixture
def faulty(server, endpoint, bucket, monkeypatch):
    """A server in front of the real one, which meets the faults first."""

    async def forward(request):
        skipped = ("Content-Length", "Transfer-Encoding", "Content-Encoding", "Connection")
        async with aiohttp.ClientSession(auto_decompress=False) as session:
            url = endpoint + request.path_qs
            async with session.request(request.method, url, headers=request.headers) as answer:
                kept = {k: v for k, v in answer.headers.items() if k not in skipped}
                if request.method == "HEAD":
                    kept["Content-Length"] = answer.headers["Content-Length"]
                return web.Response(status=answer.status, headers=kept, body=await answer.read())

    server.always = forward
    monkeypatch.setenv("AWS_ENDPOINT_URL", server.root)
    store._filesystem.cache_clear()
    bucket.put_object(Key="net.bin", Body=BODY)
    return server


async def break_off(request):
    headers = {"Content-Range": f"bytes 0-999/{len(BODY)}", "Content-Length": "1000"}
    answer = web.StreamResponse(status=206, headers=headers)
    await answer.prepare(request)
    await answer.write(BODY[:300])
    request.transport.abort()
    return answer


async def slow_down(request):
    error = "<Error><Code>SlowDown</Code><Message>Please slow down.</Message></Error>"
    return web.Response(status=503, text=error, content_type="application/xml")


@pytest.mark.parametrize("fault", [break_off, slow_down])
def test_what_fails_in_passing_is_asked_again(faulty, cache, fault):
    forward = faulty.always
    with open_mirror(RemoteFile.parse("s3://train/net.bin", cache)) as mirror:
        faulty.faults.extend([fault, fault, forward])
        assert mirror[0:1000] == BODY[:1000]
        assert len(faulty.data) == 3


def test_of_a_store_that_ignores_ranges_the_whole_object_is_fetched(faulty, cache):
    forward = faulty.always

    async def ignore(request):
        kept = {name: value for name, value in request.headers.items() if name != "Range"}
        return await forward(request.clone(headers=kept))

    faulty.always = ignore
    with open_mirror(RemoteFile.parse("s3://train/net.bin", cache)) as mirror:
        assert mirror[500_000:500_010] == BODY[500_000:500_010]
        assert mirror.has((0, len(BODY)))


def test_any_other_file_system_of_fsspec(cache):
    import fsspec

    memory = fsspec.filesystem("memory")
    memory.pipe("/net.bin", b"abcdefgh" * 100)
    with open_mirror(RemoteFile.parse("memory://net.bin", cache)) as mirror:
        assert mirror[8:12] == b"abcd"
        memory.pipe("/net.bin", b"12345678" * 100)
        with pytest.raises(FileChangedError):
            mirror.ensure([(400, 500)])
