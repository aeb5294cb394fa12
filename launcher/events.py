"""Name what can happen to a run, and what supervision can want done about it."""

from __future__ import annotations

from dataclasses import dataclass
from signal import Signals
from typing import TYPE_CHECKING, TypeAlias

if TYPE_CHECKING:  # NumPy comes with it, which slots of mpirun need not wait for
    from workers.protocol import Message


@dataclass(frozen=True)
class Heard:
    """A rank said something."""

    message: Message
    at_s: float


@dataclass(frozen=True)
class Exited:
    """The process of a rank is no more."""

    rank: int
    exit_code: int
    signal: int  # 0: it left by itself
    at_s: float


@dataclass(frozen=True)
class EngineLost:
    """What keeps ranks alive is no more, and they with it."""

    exit_code: int
    message: str
    at_s: float
    ranks: frozenset[int] | None = None  # None: all
    kind: str = "EngineLost"
    worth_retrying: bool = False  # what was lost can be started again


@dataclass(frozen=True)
class Interrupted:
    """Somebody told the launcher to end."""

    signal: int
    at_s: float


@dataclass(frozen=True)
class ResultRefused:
    """What was predicted cannot be trusted, or not be kept."""

    rank: int | None
    kind: str
    message: str
    exit_code: int
    at_s: float


@dataclass(frozen=True)
class Tick:
    """Time has passed."""

    at_s: float


Event: TypeAlias = "Heard | Exited | EngineLost | Interrupted | ResultRefused | Tick"


@dataclass(frozen=True)
class Send:
    """Send a signal to the process of a rank."""

    rank: int
    signal: Signals


@dataclass(frozen=True, kw_only=True)
class Cause:
    """The first failure."""

    rank: int | None = None
    phase: str | None = None
    kind: str
    message: str
    traceback: str = ""
    exit_code: int
    worth_retrying: bool = False  # the same ranks may well succeed next time
