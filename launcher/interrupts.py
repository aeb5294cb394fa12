"""Turn the signals that tell the launcher to end into something a poller can wait for."""

from __future__ import annotations

import signal
import socket
import threading
from signal import Signals
from types import FrameType, TracebackType
from typing import Any

ENDING = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)


class Interrupts:
    """While entered, those signals do nothing by themselves, but come out of ``receive``.

    A signal that was ignored stays ignored (nohup). Python allows handlers in the main thread
    only; in another one the signals keep the meaning that they have there.
    """

    def __init__(self) -> None:
        self._end, self._other_end = socket.socketpair()
        self._end.setblocking(False)
        self._other_end.setblocking(False)
        self._previous: dict[Signals, Any] = {}
        self._previous_fd = -1

    def fileno(self) -> int:
        return self._end.fileno()

    def receive(self) -> list[int]:
        """Return the signals that have come, in order; never blocks."""
        try:
            return [number for number in self._end.recv(64) if number in self._previous]
        except BlockingIOError:
            return []

    def __enter__(self) -> Interrupts:
        if threading.current_thread() is threading.main_thread():
            self._previous_fd = signal.set_wakeup_fd(self._other_end.fileno())
            for number in ENDING:
                if signal.getsignal(number) is not signal.SIG_IGN:
                    self._previous[number] = signal.signal(number, _noted)
            signal.pthread_sigmask(signal.SIG_UNBLOCK, ENDING)  # whoever started us may block them
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        for number, handler in self._previous.items():
            signal.signal(number, signal.SIG_DFL if handler is None else handler)
        if self._previous:
            signal.set_wakeup_fd(self._previous_fd)
        self._end.close()
        self._other_end.close()


def _noted(number: int, frame: FrameType | None) -> None:
    """Do nothing: the wakeup file descriptor has the signal already."""
