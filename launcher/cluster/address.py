"""Say where the head listens, and find the way there. The secret never is an argument."""

from __future__ import annotations

import json
import os
import socket
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path

from launcher.errors import DEADLINE_EXIT_CODE, LauncherError

_POLL_S = 0.02
_TELL_S = 10.0
_DIAL_S = 2.0  # for one address; a host that drops what it does not know never answers


@dataclass(frozen=True, kw_only=True)
class HeadAddress:
    """How a member reaches the head of its job."""

    addresses: tuple[str, ...]  # of one host; some may not be reachable from another
    port: int
    secret: str

    def to_json(self) -> str:
        return json.dumps(asdict(self))

    @classmethod
    def from_json(cls, text: str) -> HeadAddress:
        values = json.loads(text)
        return cls(**{**values, "addresses": tuple(values["addresses"])})


class HeadNotFoundError(LauncherError):
    """The head did not come in time."""

    exit_code = DEADLINE_EXIT_CODE

    def __init__(self, where: str, limit_s: float) -> None:
        super().__init__(where, limit_s)
        self.where, self.limit_s = where, limit_s

    def __str__(self) -> str:
        return f"no launcher of rank 0 within {self.limit_s:g} s; looked at {self.where}"


def find_head(
    look: Callable[[], HeadAddress | None],
    where: str,
    limit_s: float,
    tell: Callable[[str], None],
) -> tuple[HeadAddress, str]:
    """Return where the head is, and that of its addresses which answers.

    Args:
        look: returns what is known of the head by now.
        where: says to people where that comes from.

    Raises:
        HeadNotFoundError: the time is over.
    """
    started_s = told_s = time.monotonic()
    while True:
        head = look()
        for address in head.addresses if head else ():
            if head and _answers(address, head.port):
                return head, address
        now_s = time.monotonic()
        if now_s - started_s > limit_s:
            raise HeadNotFoundError(where, limit_s)
        if now_s - told_s > _TELL_S:
            tell(f"waiting for the launcher of rank 0: {now_s - started_s:.0f} s; {where}")
            told_s = now_s
        time.sleep(_POLL_S)


def read_file(path: Path) -> HeadAddress | None:
    """Return what the head has written for its members, if it has."""
    try:
        return HeadAddress.from_json(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        return None


def write_file(path: Path, head: HeadAddress) -> None:
    """Tell those who can read the user's own files; the file appears whole or not at all."""
    draft = path.with_name(f"{path.name}.{os.getpid()}")
    descriptor = os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
    with open(descriptor, "w", encoding="utf-8") as file:
        file.write(head.to_json())
    draft.replace(path)


def _answers(address: str, port: int) -> bool:
    try:
        socket.create_connection((address, port), _DIAL_S).close()
    except OSError:  # nobody there yet, or no such name
        return False
    return True
