"""Interrupts: which signals come out, and that everything is as before afterwards."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from launcher.interrupts import ENDING, Interrupts

ROOT = Path(__file__).parents[2]


@pytest.fixture(autouse=True)
def own_handlers() -> Iterator[None]:
    before = {number: signal.getsignal(number) for number in ENDING}
    yield
    assert {number: signal.getsignal(number) for number in ENDING} == before


def test_signals_come_out_in_order_and_end_nothing_by_themselves() -> None:
    # In a process of its own: MindSpore, which other tests run here, makes SIGTERM of SIGINT.
    child = (
        "import select, signal\n"
        "from launcher.interrupts import Interrupts\n"
        "signal.signal(signal.SIGINT, signal.default_int_handler)\n"
        "with Interrupts() as interrupts:\n"
        "    print(interrupts.receive())\n"
        "    signal.raise_signal(signal.SIGTERM)\n"
        "    signal.raise_signal(signal.SIGINT)\n"
        "    assert select.select([interrupts], [], [], 0)[0]\n"
        "    print(interrupts.receive(), interrupts.receive())\n"
    )
    done = subprocess.run([sys.executable, "-c", child], capture_output=True, text=True, cwd=ROOT)
    assert (done.returncode, done.stdout) == (0, "[]\n[15, 2] []\n"), done.stderr


def test_a_signal_that_was_ignored_stays_ignored() -> None:
    before = signal.signal(signal.SIGHUP, signal.SIG_IGN)
    try:
        with Interrupts() as interrupts:
            signal.raise_signal(signal.SIGHUP)
            assert interrupts.receive() == []
    finally:
        signal.signal(signal.SIGHUP, before)


def test_a_signal_that_the_starter_had_blocked_comes_out_too() -> None:
    before = signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGTERM])
    try:
        with Interrupts() as interrupts:
            os.kill(os.getpid(), signal.SIGTERM)
            assert interrupts.receive() == [signal.SIGTERM]
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def test_in_another_thread_signals_are_left_alone() -> None:
    inside = []

    def enter() -> None:
        with Interrupts() as interrupts:
            inside.append([signal.getsignal(number) for number in ENDING])
            inside.append(interrupts.receive())

    thread = threading.Thread(target=enter)
    thread.start()
    thread.join()
    assert inside == [[signal.getsignal(number) for number in ENDING], []]
