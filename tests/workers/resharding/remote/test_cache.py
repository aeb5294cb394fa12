"""The cache under several processes, damage, and a limit."""

from __future__ import annotations

import multiprocessing
import os
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path
from random import Random

import pytest

from workers.resharding.remote.address import RemoteFile
from workers.resharding.remote.cache import Cache, parse_size
from workers.resharding.remote.errors import CacheError, DigestError, RemoteError
from workers.resharding.remote.mirror import open_mirror

KiB = 1 << 10


def fetch(url, cache, *ranges):
    with open_mirror(RemoteFile.parse(url, cache)) as mirror:
        mirror.ensure(ranges)
        return mirror[0:8]


def held(cache: Cache) -> set[str]:
    return {folder.name.split("-")[0] for folder in cache.folder.iterdir() if folder.is_dir()}


def add(server, *names, size=256 * KiB):
    for number, name in enumerate(names):
        (server.folder / name).write_bytes(bytes([number + 1]) * size)


def test_processes_fetch_each_byte_once(server, cache, body):
    url = server.url("net.bin")
    context = multiprocessing.get_context("spawn")
    # Each wants its third, the third after it, and the beginning.
    share = len(body) // 3 + 1
    wanted = [[(0, 8), (n * share, min((n + 2) * share, len(body)))] for n in range(3)]
    with context.Pool(3) as pool:
        answers = pool.starmap(fetch, [(url, cache, *ranges) for ranges in wanted])
    assert answers == [body[:8]] * 3
    assert server.nbytes == len(body)


def test_a_damaged_part_is_found_and_fetched_again(server, cache, body):
    url = server.url("net.bin")
    fetch(url, cache, (0, 1000), (5000, 6000))
    (data,) = cache.folder.glob("*/data")
    content = bytearray(data.read_bytes())
    content[5] ^= 1
    data.write_bytes(content)
    server.asked.clear()
    assert fetch(url, cache, (0, 1000), (5000, 6000)) == body[:8]
    assert [asked.range for asked in server.data] == ["bytes=0-999"]


def test_a_writer_that_died_in_its_line_takes_nothing_from_the_others(server, cache, body):
    url = server.url("net.bin")
    fetch(url, cache, (0, 100))
    (journal,) = cache.folder.glob("*/journal")
    whole = journal.read_text()
    journal.write_text(whole + "200 30")
    fetch(url, cache, (200, 300))
    server.asked.clear()
    assert fetch(url, cache, (0, 100), (200, 300)) == body[:8]
    assert server.data == []


def test_nonsense_in_the_journal_is_not_believed(server, cache, body):
    url = server.url("net.bin")
    fetch(url, cache, (0, 100))
    (journal,) = cache.folder.glob("*/journal")
    journal.write_text(f"0 99999999999 {'0' * 64}\n7 3 {'0' * 64}\nxyz\n0 50 {'0' * 64}\n")
    server.asked.clear()
    assert fetch(url, cache, (0, 100)) == body[:8]
    assert server.nbytes == 100


def test_what_was_not_used_for_longest_makes_room(server, tmp_path):
    add(server, "a", "b", "c", "d")
    cache = Cache(tmp_path / "cache", 600 * KiB)
    for name in ("a", "b"):
        fetch(server.url(name), cache, (0, 256 * KiB))
    for number, name in enumerate("ba"):  # the clock of a file system may be coarse
        (data,) = cache.folder.glob(f"{name}-*/data")
        os.utime(data, (number, number))
    fetch(server.url("c"), cache, (0, 256 * KiB))
    assert held(cache) == {"a", "c"}


def test_a_file_in_use_is_not_evicted(server, tmp_path):
    add(server, "a", "b", "c")
    cache = Cache(tmp_path / "cache", 600 * KiB)
    with open_mirror(RemoteFile.parse(server.url("a"), cache)) as first:
        first.ensure([(0, 256 * KiB)])
        with open_mirror(RemoteFile.parse(server.url("b"), cache)) as second:
            second.ensure([(0, 256 * KiB)])
            with pytest.raises(CacheError, match="--cache-size or LAUNCHER_CACHE_SIZE"):
                fetch(server.url("c"), cache, (0, 256 * KiB))
        fetch(server.url("c"), cache, (0, 256 * KiB))
        assert first[0:8] == b"\1" * 8
    assert held(cache) == {"a", "c"}


def test_another_version_of_a_file_is_another_file(server, cache, body):
    url = server.url("net.bin")
    assert fetch(url, cache, (0, 100)) == body[:8]
    (server.folder / "net.bin").write_bytes(body[::-1] + b"!")
    assert fetch(url, cache, (0, 100)) == body[::-1][:8]


def test_a_sha256_behind_the_hash_sign_is_checked_on_the_whole_file(server, cache, body):
    import hashlib

    digest = hashlib.sha256(body).hexdigest()
    assert fetch(f"{server.url('net.bin')}#sha256={digest}", cache) == body[:8]
    assert server.nbytes == len(body)
    server.asked.clear()
    assert fetch(f"{server.url('net.bin')}#sha256={digest}", cache) == body[:8]
    assert server.data == []
    with pytest.raises(DigestError, match=digest):
        fetch(f"{server.url('net.bin')}#sha256={'0' * 64}", cache)
    with pytest.raises(RemoteError, match="64 hexadecimal digits"):
        fetch(f"{server.url('net.bin')}#md5=12", cache)


def test_a_cache_that_cannot_be_made_is_an_error_with_its_name(server, body, tmp_path):
    (tmp_path / "file").touch()
    with pytest.raises(CacheError, match="LAUNCHER_CACHE"):
        fetch(server.url("net.bin"), Cache(tmp_path / "file" / "cache", 1 << 20), (0, 10))


@pytest.mark.parametrize(
    "text, nbytes", [("64G", 64 << 30), ("1.5 MiB", 3 << 19), ("12", 12), ("2kb", 2048)]
)
def test_sizes(text, nbytes):
    assert parse_size(text) == nbytes


def test_the_environment_names_the_cache(tmp_path):
    assert Cache.of({"LAUNCHER_CACHE": "/x", "LAUNCHER_CACHE_SIZE": "1G"}) == Cache(
        Path("/x"), 1 << 30
    )
    assert Cache.of({"XDG_CACHE_HOME": "/y"}).folder == Path("/y/ascend-slice-launcher")
    with pytest.raises(CacheError, match="LAUNCHER_CACHE_SIZE: 'much' is no size"):
        Cache.of({"LAUNCHER_CACHE_SIZE": "much"})


def test_many_at_once_in_a_small_cache_read_what_the_server_has_or_are_refused(
    server, tmp_path, monkeypatch
):
    monkeypatch.setattr("workers.resharding.remote.cache._HEADER_NBYTES", 0)
    size, limit = 512 * KiB, 1400 * KiB  # room for two files and a part of a third
    bodies = [bytes((7 * n + 31 * file) % 251 + 1 for n in range(size)) for file in range(4)]
    for file, content in enumerate(bodies):
        (server.folder / f"f{file}").write_bytes(content)
    cache = Cache(tmp_path / "cache", limit)

    def read(seed: int) -> None:
        random = Random(seed)
        for _ in range(8):
            file, start = random.randrange(4), random.randrange(size - 1)
            stop = min(size, start + random.randrange(1, size // 2))
            with suppress(CacheError):
                with open_mirror(RemoteFile.parse(server.url(f"f{file}"), cache)) as mirror:
                    assert mirror[start:stop] == bodies[file][start:stop]

    with ThreadPoolExecutor(4) as pool:
        list(pool.map(read, range(4)))
    kept = sum(data.stat().st_blocks * 512 for data in cache.folder.glob("*/data"))
    assert 0 < kept <= limit + 64 * KiB  # of the last ranges, blocks that are begun
