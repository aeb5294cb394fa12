"""Byte ranges from a real HTTP server, and what happens when it does not behave."""

from __future__ import annotations

import asyncio
from email.utils import formatdate
from pathlib import Path

import pytest
from aiohttp import web

from workers.resharding.errors import FileChangedError
from workers.resharding.remote import store
from workers.resharding.remote.address import RemoteFile
from workers.resharding.remote.errors import NoSuchFileError, RemoteError
from workers.resharding.remote.mirror import open_mirror


def read(server, cache, *ranges, name="net.bin"):
    with open_mirror(RemoteFile.parse(server.url(name), cache)) as mirror:
        mirror.ensure(ranges)
        return [mirror[slice(*each)] for each in ranges]


def test_only_the_wanted_bytes_are_asked_for(server, cache, body):
    assert read(server, cache, (10, 20), (900_000, 900_100)) == [body[10:20], body[900_000:900_100]]
    assert sorted(asked.range for asked in server.data) == ["bytes=10-19", "bytes=900000-900099"]
    assert server.nbytes == 110


def test_what_was_fetched_once_is_never_asked_for_again(server, cache, body):
    read(server, cache, (0, 1000))
    asked = len(server.data)
    assert read(server, cache, (100, 900)) == [body[100:900]]
    assert len(server.data) == asked
    assert read(server, cache, (900, 1100)) == [body[900:1100]]
    assert server.data[-1].range == "bytes=1000-1099"


def test_a_long_range_is_asked_for_in_parts(server, cache, body, monkeypatch):
    monkeypatch.setattr("workers.resharding.remote.mirror.PART_NBYTES", 100_000)
    assert read(server, cache, (0, len(body))) == [body]
    assert len(server.data) == 11 and server.nbytes == len(body)


@pytest.mark.parametrize("status", [500, 502, 503, 504, 429, 408])
def test_a_server_that_fails_in_passing_is_asked_again(server, cache, body, status):
    async def fail(request):
        return web.Response(status=status)

    async def well(request):
        return None

    server.faults.extend([well, fail, fail])  # the version is asked for first
    assert read(server, cache, (5, 50)) == [body[5:50]]
    assert len(server.data) == 3


def test_a_server_that_always_fails_is_an_error_that_says_how_often(server, cache, body):
    async def fail(request):
        return web.Response(status=503) if request.method == "GET" else None

    server.always = fail
    with pytest.raises(RemoteError, match="503 Service Unavailable, 8 times") as caught:
        read(server, cache, (0, 10))
    assert caught.value.exit_code == 2


@pytest.mark.parametrize("status, words", [(403, "access is refused .403"), (401, "netrc")])
def test_a_refusal_is_final_and_says_where_credentials_come_from(
    server, cache, body, status, words
):
    async def refuse(request):
        return web.Response(status=status)

    server.always = refuse
    with pytest.raises(RemoteError, match=words):
        read(server, cache, (0, 10))
    assert len(server.asked) == 2  # HEAD, then GET: links may be signed for the one only


def test_a_file_that_is_not_there(server, cache):
    with pytest.raises(NoSuchFileError, match="no such file .404"):
        read(server, cache, (0, 10))


def test_a_server_that_nobody_listens_at(server, cache):
    server.root = "http://127.0.0.1:9"
    with pytest.raises(RemoteError, match="Connect call failed .*8 times"):
        read(server, cache, (0, 10))


def test_a_connection_that_breaks_off_midway_is_made_anew(server, cache, body):
    async def break_off(request):
        answer = web.StreamResponse(
            status=206,
            headers={"Content-Range": f"bytes 0-999/{len(body)}", "Content-Length": "1000"},
        )
        await answer.prepare(request)
        await answer.write(body[:300])
        request.transport.abort()
        return answer

    async def well(request):
        return None

    server.faults.extend([well, break_off, break_off])
    assert read(server, cache, (0, 1000)) == [body[:1000]]
    assert len(server.data) == 3


def test_fewer_bytes_than_asked_for_are_not_taken(server, cache, body):
    async def short(request):
        headers = {"Content-Range": f"bytes 0-999/{len(body)}"}
        return web.Response(status=206, headers=headers, body=body[:400])

    async def well(request):
        return None

    server.faults.extend([well, short])
    assert read(server, cache, (0, 1000)) == [body[:1000]]

    async def always_short(request):
        headers = {"Content-Range": f"bytes 2000-2999/{len(body)}"}
        return web.Response(status=206, headers=headers, body=body[:400]) if (
            "Range" in request.headers
        ) else None

    server.always = always_short
    with pytest.raises(RemoteError, match="1000 bytes were asked for, 400 came, 8 times"):
        read(server, cache, (2000, 3000))


def test_another_range_than_asked_for_is_not_taken(server, cache, body):
    async def other(request):
        headers = {"Content-Range": f"bytes 7-16/{len(body)}"}
        return web.Response(status=206, headers=headers, body=body[7:17])

    async def well(request):
        return None

    server.faults.extend([well, other])
    assert read(server, cache, (0, 10)) == [body[:10]]


def test_a_server_that_lies_about_the_length_is_found_out(server, cache, body):
    async def lie(request):
        headers = {"Content-Length": str(len(body) + 5), "ETag": '"1"'}
        answer = web.Response(headers=headers) if request.method == "HEAD" else None
        return answer

    server.always = lie
    with pytest.raises((RemoteError, FileChangedError)):
        read(server, cache, (0, 10))

    async def lie_twice(request):
        if request.method == "HEAD":
            return await lie(request)
        headers = {"Content-Range": f"bytes 0-9/{len(body)}", "ETag": '"1"'}
        return web.Response(status=206, headers=headers, body=body[:10])

    server.always = lie_twice
    with pytest.raises(RemoteError, match="said that it has 1024005 bytes, and now 1024000"):
        read(server, cache, (0, 10))


def test_a_file_that_changes_between_two_ranges_is_an_error(server, cache, body):
    with open_mirror(RemoteFile.parse(server.url("net.bin"), cache)) as mirror:
        mirror.ensure([(0, 10)])
        (server.folder / "net.bin").write_bytes(body[::-1] + b"!")
        with pytest.raises(FileChangedError, match="has changed"):
            mirror.ensure([(500, 600)])
    assert server.data[-1].headers["If-Match"].startswith('"')


def test_a_server_that_ignores_conditions_cannot_pass_off_another_version(server, cache, body):
    async def renew(request):
        headers = {"Content-Range": f"bytes 0-9/{len(body)}", "ETag": '"another"'}
        return web.Response(status=206, headers=headers, body=b"x" * 10)

    async def well(request):
        return None

    server.faults.extend([well, renew])
    with pytest.raises(FileChangedError):
        read(server, cache, (0, 10))


def test_without_an_etag_the_time_of_the_change_counts(server, cache, body):
    def dated(time):
        async def answer(request):
            headers = {"Last-Modified": formatdate(time, usegmt=True)}
            if request.method == "HEAD":
                return web.Response(headers={**headers, "Content-Length": str(len(body))})
            headers["Content-Range"] = f"bytes 0-9/{len(body)}"
            return web.Response(status=206, headers=headers, body=body[:10])

        return answer

    server.always = dated(1_000_000)
    assert read(server, cache, (0, 10)) == [body[:10]]
    assert "If-Unmodified-Since" in server.data[-1].headers
    server.faults.extend([dated(1_000_060), dated(1_000_120)])
    with pytest.raises(FileChangedError):
        read(server, cache, (0, 10))


def test_servers_that_tell_different_times_of_one_content_have_one_version(server, cache, body):
    async def another_time(request):
        headers = {"ETag": '"1"', "Last-Modified": formatdate(len(server.asked) * 60, usegmt=True)}
        if request.method == "HEAD":
            return web.Response(headers={**headers, "Content-Length": str(len(body))})
        headers["Content-Range"] = f"bytes 0-9/{len(body)}"
        return web.Response(status=206, headers=headers, body=body[:10])

    server.always = another_time
    for _ in range(2):
        assert read(server, cache, (0, 10)) == [body[:10]]
    assert len(server.data) == 1


def test_a_file_without_any_version_is_refused(server, cache, body):
    async def plain(request):
        return web.Response(body=body[:100])

    server.always = plain
    with pytest.raises(RemoteError, match="neither an ETag nor a time"):
        read(server, cache, (0, 10))


@pytest.mark.parametrize("breaks", [0, 2])
def test_of_a_server_that_ignores_ranges_the_whole_file_is_fetched_once(
    server, cache, body, breaks, capfd
):
    left = breaks

    async def whole(request):
        nonlocal left
        etag = {"ETag": '"1"'}
        if request.method == "HEAD" or "Range" in request.headers or not left:
            return web.Response(body=body, headers=etag)
        left -= 1
        answer = web.StreamResponse(headers={**etag, "Content-Length": str(len(body))})
        await answer.prepare(request)
        await answer.write(body[:1000])
        request.transport.abort()
        return answer

    server.always = whole
    assert read(server, cache, (10, 20)) == [body[10:20]]
    assert "ignores byte ranges: all of it is fetched" in capfd.readouterr().err
    asked = len(server.asked)
    assert read(server, cache, (500_000, 900_000)) == [body[500_000:900_000]]
    assert len(server.asked) == asked + 1  # for the version


def test_a_server_that_ignores_ranges_and_sends_too_much(server, cache, body):
    async def whole(request):
        if request.method == "HEAD":
            return web.Response(headers={"ETag": '"1"', "Content-Length": "1000"})
        return web.Response(body=body, headers={"ETag": '"1"'})

    server.always = whole
    with pytest.raises(RemoteError, match="said that it has 1000 bytes, but sends more"):
        read(server, cache, (10, 20))


def test_a_server_that_falls_silent_is_given_up(server, cache, body, monkeypatch):
    monkeypatch.setattr(store, "SILENCE_S", 0.05)
    monkeypatch.setattr("workers.resharding.remote.patience.ATTEMPTS", 2)
    store._filesystem.cache_clear()

    async def fall_silent(request):
        answer = web.StreamResponse(
            status=206,
            headers={"Content-Range": f"bytes 0-9/{len(body)}", "Content-Length": "10"},
        )
        await answer.prepare(request)
        await answer.write(body[:3])
        await asyncio.Event().wait()  # until the client hangs up
        return answer

    async def well(request):
        return None

    server.faults.extend([well, fall_silent, fall_silent])
    with pytest.raises(RemoteError, match="does not answer .*Timeout.*2 times"):
        read(server, cache, (0, 10))
    store._filesystem.cache_clear()


def test_nothing_secret_in_a_url_is_ever_shown(server, cache, body):
    url = server.url("gone.bin").replace("http://", "http://me:hunter2@") + "?signature=s3cret"
    file = RemoteFile.parse(url, cache)
    with pytest.raises(RemoteError) as caught, open_mirror(file):
        pass
    error = caught.value
    told = f"{error} {error!r} {file} {file!r} {error.__cause__} {error.__suppress_context__}"
    assert "hunter2" not in told and "s3cret" not in told
    assert error.__cause__ is None and error.__suppress_context__
    assert "gone.bin" in str(error)
    assert server.asked[0].headers["Authorization"].startswith("Basic ")


def test_the_texts_of_libraries_show_nothing_secret_either(server, cache, body):
    async def turn_round(request):
        raise web.HTTPFound(f"{request.path}?signature=s3cret")

    server.always = turn_round
    with pytest.raises(RemoteError, match="TooManyRedirects") as caught:
        read(server, cache, (0, 10), name="net.bin?signature=s3cret")
    assert "s3cret" not in str(caught.value)


def test_a_link_that_is_signed_for_get_alone_works(server, cache, body):
    async def refuse_head(request):
        return web.Response(status=403) if request.method == "HEAD" else None

    server.always = refuse_head
    assert read(server, cache, (10, 20)) == [body[10:20]]


def test_headers_of_the_user_reach_the_server(server, cache, body, monkeypatch):
    import fsspec

    conf = {"http": {"headers": {"Authorization": "Bearer abc"}}}
    monkeypatch.setattr(fsspec.config, "conf", conf)
    monkeypatch.setattr("fsspec.spec.apply_config.__defaults__", (conf,))
    store._filesystem.cache_clear()
    read(server, cache, (10, 20))
    assert {asked.headers.get("Authorization") for asked in server.asked} == {"Bearer abc"}


def test_passwords_come_from_netrc(server, cache, body, monkeypatch, tmp_path):
    (tmp_path / "netrc").write_text("machine 127.0.0.1 login me password hunter2\n")
    (tmp_path / "netrc").chmod(0o600)
    monkeypatch.setenv("NETRC", str(tmp_path / "netrc"))
    store._filesystem.cache_clear()
    read(server, cache, (10, 20))
    assert all(asked.headers["Authorization"].startswith("Basic ") for asked in server.asked)


def test_proxies_come_from_the_environment(server, cache, body, monkeypatch):
    monkeypatch.setenv("http_proxy", server.root)
    monkeypatch.delenv("no_proxy", raising=False)
    store._filesystem.cache_clear()
    with open_mirror(RemoteFile.parse("http://models.invalid/net.bin", cache)) as mirror:
        assert mirror[10:20] == body[10:20]
    assert {asked.headers["Host"] for asked in server.asked} == {"models.invalid"}


def test_an_unknown_kind_of_url_is_named(cache):
    with pytest.raises(RemoteError, match="gopher:// is no kind of URL"):
        with open_mirror(RemoteFile.parse("gopher://x/y", cache)):
            pass


def test_a_missing_package_is_named_with_the_command_that_installs_it(cache, monkeypatch):
    import sys

    from workers.resharding.remote.errors import MissingPackageError

    monkeypatch.setitem(sys.modules, "fsspec", None)
    store._filesystem.cache_clear()
    with pytest.raises(MissingPackageError, match=r"pip install 'ascend-slice-launcher\[remote\]'"):
        with open_mirror(RemoteFile.parse("https://localhost/x", cache)):
            pass


def test_a_local_file_never_imports_what_remote_ones_need():
    import subprocess
    import sys

    code = (
        "import sys, workers.resharding.checkpoint, workers.resharding.execute;"
        "print([m for m in ('fsspec', 'aiohttp', 'tenacity', 's3fs') if m in sys.modules])"
    )
    root = Path(__file__).parents[4]
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=root)
    assert done.stdout == "[]\n", done.stderr
