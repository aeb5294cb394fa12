"""Show what chosen ranks print while they run: ``rank 3| ...``, and once what several print alike.

The logs are followed, not the ranks: a rank never waits for a terminal, whatever it prints.
"""

from __future__ import annotations

import os
import re
import threading
from collections import Counter, deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager
from itertools import chain
from pathlib import Path
from typing import BinaryIO

from launcher.errors import JobError
from launcher.outcome import Restarted, Resumed
from launcher.text import name_ranks, parse_ranges, size, visible
from workers.protocol import Message

LOOK_EVERY_S = 0.2  # a line waits for its likes as long as that
_AT_ONCE = 1 << 16  # bytes of a rank in one look
_BEHIND = 1 << 20  # bytes; what is older is left to the log
_LONGEST = 2000  # characters of a line
_COMMAND = re.compile(r"\x1b\[[0-?]*[ -/]*[@-~]")  # to a terminal: ECMA-48, 5.4


class Follower:
    """The lines of a file that grows, or gives way to a new one of its name."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._file: BinaryIO | None = None
        self._begun = b""  # a line without its end

    def lines(self) -> Iterator[str]:
        """Yield the lines that have come since the last time, but not more than people can read."""
        try:
            found = os.stat(self._path)
        except OSError:  # not yet there, or just set aside
            return
        if self._file is None or os.fstat(self._file.fileno()).st_ino != found.st_ino:
            yield from self.rest()
            self._file = open(self._path, "rb")
        behind = found.st_size - self._file.tell() - _BEHIND
        if behind > 0:
            self._file.seek(behind, os.SEEK_CUR)
            self._begun = b""
            yield f"... {size(behind)} more, see {self._path}"
        *whole, self._begun = (self._begun + self._file.read(_AT_ONCE)).split(b"\n")
        yield from map(_readable, whole)
        if len(self._begun) > _AT_ONCE:  # it may never end
            yield _readable(self._begun)
            self._begun = b""

    def rest(self) -> Iterator[str]:
        """Yield what is left, and close the file."""
        if self._file is not None:
            *whole, last = (self._begun + self._file.read(_AT_ONCE)).split(b"\n")
            yield from map(_readable, [*whole, last] if last else whole)
            unread = os.fstat(self._file.fileno()).st_size - self._file.tell()
            if unread > 0:
                yield f"... {size(unread)} more, see {self._path}"
            self._file.close()
        self._file, self._begun = None, b""


def fold(queues: Mapping[int, deque[str]], due: Mapping[int, int]) -> Iterator[str]:
    """Take lines out of the queues of ranks until the first so many of each are out.

    The lines of each rank stay in order. A line that another rank will come to, once it is done
    with what it has before it, waits for that.
    """
    counts = {rank: Counter(queue) for rank, queue in queues.items()}
    left = dict(due)
    while any(count > 0 for count in left.values()):
        due_first = sorted((rank for rank in queues if queues[rank]), key=lambda r: left[r] <= 0)
        heads = [queues[rank][0] for rank in due_first]
        free = (text for text in heads if not _is_behind(text, queues, counts))
        text = next(free, heads[0])  # if each waits for another one, somebody has to begin
        ranks = [rank for rank, queue in queues.items() if queue and queue[0] == text]
        for rank in ranks:
            queues[rank].popleft()
            counts[rank][text] -= 1
            left[rank] -= 1
        yield f"{name_ranks(ranks)}| {text}"


class Tee(AbstractContextManager["Tee"]):
    """Between enter and exit a thread shows what the ranks print. Tell it when ranks are alive."""

    def __init__(self, logs: Mapping[int, Path], show: Callable[[str], None]) -> None:
        self._followers = {rank: Follower(path) for rank, path in sorted(logs.items())}
        self._queues: dict[int, deque[str]] = {rank: deque() for rank in self._followers}
        self._alive: set[int] = set()  # whose log is of this run
        self._show, self._over = show, threading.Event()
        self._thread = threading.Thread(target=self._watch, daemon=True)

    def watch(self, news: Message | Restarted | Resumed) -> None:
        """Take note that a rank of this run has said something: its log is not an earlier one."""
        if not isinstance(news, (Restarted, Resumed)):
            self._alive.add(news.rank)

    def look(self) -> None:
        """Show what was there the last time, together with its likes that have come since."""
        due = {rank: len(queue) for rank, queue in self._queues.items()}
        for rank, follower in self._followers.items():
            if rank in self._alive:
                self._queues[rank].extend(follower.lines())
        for line in fold(self._queues, due):
            self._show(line)

    def _watch(self) -> None:
        while not self._over.wait(LOOK_EVERY_S):
            self.look()

    def __enter__(self) -> Tee:
        if self._followers:
            self._thread.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, *raised: object) -> None:
        self._over.set()
        if self._followers:
            self._thread.join()
        if kind is None:  # then the logs are of this run, also those of ranks that never spoke
            self._alive.update(self._followers)
            self.look()
            for rank, follower in self._followers.items():
                self._queues[rank].extend(follower.rest())
            for line in fold(self._queues, {r: len(queue) for r, queue in self._queues.items()}):
                self._show(line)


def chosen_ranks(text: str, ranks: int) -> Sequence[int]:
    """Return ``[0, 2, 3]`` for ``0,2-3``, and all of them for ``all``.

    Raises:
        JobError: there are not so many ranks.
    """
    if text == "all":
        return range(ranks)
    spans = parse_ranges(text)
    highest = max((span[-1] for span in spans), default=0)  # 0-99999999999 fits no memory
    if highest >= ranks:
        raise JobError.about("tee", f"there is no rank {highest}", f"name 0 to {ranks - 1}")
    return sorted(set(chain(*spans)))


def _is_behind(
    text: str, queues: Mapping[int, deque[str]], counts: Mapping[int, Counter[str]]
) -> bool:
    """Say whether a rank has yet to come to a line that others are at."""
    return any(queue and queue[0] != text and counts[r][text] > 0 for r, queue in queues.items())


def _readable(line: bytes) -> str:
    """Return a line as text: of a progress bar the last state, and no colours, no movements."""
    text = line.decode("utf-8", errors="replace").rstrip("\r").rpartition("\r")[2]
    text = visible(_COMMAND.sub("", text))
    return text if len(text) <= _LONGEST else f"{text[:_LONGEST]} ... ({len(text)} characters)"
