"""Interrupts: which signals come out, and that everything is as before afterwards."""

from __future__ import annotations

import os
import select
import signal
import threading
from collections.abc import Iterator

import pytest

from launcher.interrupts import ENDING, Interrupts


@pytest.fixture(autouse=True)
def own_handlers() -> Iterator[None]:
    before = {number: signal.getsignal(number) for number in ENDING}
    yield
    assert {number: signal.getsignal(number) for number in ENDING} == before


def test_signals_come_out_in_order_and_end_nothing_by_themselves() -> None:
    with Interrupts() as interrupts:
        assert interrupts.receive() == []
        signal.raise_signal(signal.SIGTERM)
        signal.raise_signal(signal.SIGINT)
        assert select.select([interrupts], [], [], 0)[0]
        assert interrupts.receive() == [signal.SIGTERM, signal.SIGINT]
        assert interrupts.receive() == []


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
