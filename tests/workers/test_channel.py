"""The line between launcher and fork server: objects come whole, and its end is noticed."""

from __future__ import annotations

import select
import socket
from collections.abc import Iterator

import pytest

from workers.channel import Channel

Ends = tuple[Channel, socket.socket]


@pytest.fixture
def ends() -> Iterator[Ends]:
    ours, theirs = socket.socketpair()
    with ours, theirs:
        yield Channel(ours), theirs


def test_objects_come_out_as_they_went_in(ends: Ends) -> None:
    channel, other = ends
    Channel(other).send(do="start", spec='{"rank": 0}\n')
    assert channel.receive() == [{"do": "start", "spec": '{"rank": 0}\n'}]


def test_an_object_may_arrive_in_pieces(ends: Ends) -> None:
    channel, other = ends
    other.sendall(b'{"rank": 1}\n{"ra')
    assert channel.receive() == [{"rank": 1}]
    other.sendall(b'nk": 2}\n')
    assert channel.receive() == [{"rank": 2}]


def test_what_was_said_before_the_end_is_heard(ends: Ends) -> None:
    channel, other = ends
    Channel(other).send(rank=1)
    other.close()
    assert channel.receive() == [{"rank": 1}]
    assert not channel.closed
    assert channel.receive() == []
    assert channel.closed


def test_talking_to_nobody_is_no_error_but_is_noticed(ends: Ends) -> None:
    channel, other = ends
    other.close()
    channel.send(rank=1)
    assert channel.closed


def test_neither_end_waits_for_the_other_to_read(ends: Ends) -> None:
    # The kernel holds some hundreds of small objects, and no object of a megabyte.
    channel, other = ends[0], Channel(ends[1])
    told = [{"number": n, "text": "x" * (1 << 20 if n == 7 else 9)} for n in range(999)]
    for fields in told:
        channel.send(**fields)
        other.send(**fields)
    heard: tuple[list[object], list[object]] = [], []
    while len(heard[0]) < len(told) or len(heard[1]) < len(told):
        readable, _, _ = select.select([channel, other], [], [])
        for end in readable:
            heard[end is other].extend(end.receive())
    assert heard == (told, told)
