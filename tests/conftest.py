"""A real web server on loopback, for whoever reads files behind URLs."""

from __future__ import annotations

import asyncio
import os
import threading
from collections import deque
from collections.abc import Awaitable, Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:  # imported where it is used: most tests need no server
    from aiohttp import web

Fault = Callable[["web.Request"], Awaitable["web.StreamResponse | None"]]


@dataclass
class Asked:
    """A request that the server answered."""

    method: str
    path: str
    range: str
    headers: dict[str, str]

    @property
    def bytes(self) -> range:
        """The positions of what was asked for."""
        first, last = map(int, self.range.removeprefix("bytes=").split("-"))
        return range(first, last + 1)


@dataclass
class Server:
    """A web server of a folder; the next requests meet the faults, in order."""

    folder: Path
    root: str = ""
    asked: list[Asked] = field(default_factory=list)
    faults: deque[Fault] = field(default_factory=deque)
    always: Fault | None = None

    @property
    def data(self) -> list[Asked]:
        return [asked for asked in self.asked if asked.range]

    @property
    def nbytes(self) -> int:
        return sum(len(asked.bytes) for asked in self.data)

    def url(self, name: str) -> str:
        return f"{self.root}/{name}"

    async def answer(self, request: web.Request) -> web.StreamResponse:
        from aiohttp import web

        headers = dict(request.headers)
        span = headers.get("Range", "")
        self.asked.append(Asked(request.method, request.path, span, headers))
        fault = self.faults.popleft() if self.faults else self.always
        answer = await fault(request) if fault else None
        path = self.folder / request.match_info["name"]
        if answer is None and path.is_dir():
            links = "".join(f'<a href="{name}">{name}</a>' for name in sorted(os.listdir(path)))
            return web.Response(text=links, content_type="text/html")
        if answer is None and not path.is_file():
            return web.Response(status=404)
        return answer or web.FileResponse(path)


@pytest.fixture
def server(tmp_path: Path) -> Iterator[Server]:
    """Serve tmp_path/served over HTTP."""
    from aiohttp import web

    server = Server(tmp_path / "served")
    server.folder.mkdir()
    loop = asyncio.new_event_loop()

    async def start() -> web.AppRunner:
        app = web.Application()
        app.router.add_get("/{name:.*}", server.answer)
        runner = web.AppRunner(app, shutdown_timeout=0, handler_cancellation=True)
        await runner.setup()
        site = web.TCPSite(runner, "127.0.0.1", 0)
        await site.start()
        host, port = runner.addresses[0]
        server.root = f"http://{host}:{port}"
        return runner

    runner = loop.run_until_complete(start())
    thread = threading.Thread(target=loop.run_forever, daemon=True)
    thread.start()
    yield server
    asyncio.run_coroutine_threadsafe(runner.cleanup(), loop).result()
    loop.call_soon_threadsafe(loop.stop)
    thread.join()
    loop.close()
