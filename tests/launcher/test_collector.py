"""The collector, with real sockets in one process: who is let in, and what is made of it."""

from __future__ import annotations

import os
import select
import socket
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing, suppress
from dataclasses import replace

import numpy as np
import pytest
import zmq
from zmq.utils.monitor import recv_monitor_message

from launcher.collector import Collector
from launcher.errors import HostError
from workers.link import Link
from workers.protocol import (
    ACKNOWLEDGED,
    REFUSED,
    Done,
    Failed,
    Message,
    Offered,
    PhaseEntered,
    Prediction,
    RankReport,
)
from workers.slots import Slots
from workers.spec import CollectorAddress, WorkerSpec
from workers.wire_format import MAX_FRAME_BYTES, encode

PATIENCE_MS = 30_000  # only a test that fails waits so long

Connect = Callable[[CollectorAddress], zmq.Socket[bytes]]


@pytest.fixture
def collector() -> Iterator[Collector]:
    with Collector(range(2)) as collector:
        yield collector


@pytest.fixture
def connect() -> Iterator[Connect]:
    """Return a maker of clients that hold the keys they are given, and say what they like."""
    context = zmq.Context()

    def connect(address: CollectorAddress) -> zmq.Socket[bytes]:
        client = context.socket(zmq.DEALER)
        client.linger = 0
        client.curve_serverkey = address.server_key.encode()
        client.curve_publickey = address.public_key.encode()
        client.curve_secretkey = address.secret_key.encode()
        client.connect(address.endpoint)
        return client

    yield connect
    context.destroy(linger=0)


def receive(collector: Collector, count: int = 1) -> list[Message]:
    messages: list[Message] = []
    while len(messages) < count:
        assert collector.socket.poll(PATIENCE_MS)
        messages += collector.receive()
    return messages


def spec_of(rank: int, address: CollectorAddress) -> WorkerSpec:
    return WorkerSpec(
        rank=rank,
        rank_size=2,
        device_id=rank,
        server_id="localhost",
        device="simulated",
        network="net:make",
        predict_data="net:data",
        collector=address,
    )


def test_it_hears_the_predictions_of_a_rank_through_its_link(collector: Collector) -> None:
    batches = [np.full((2, 3 * size), size, np.float32) for size in (1, 2, 4, 1)]
    heard = []
    with closing(Link(spec_of(0, collector.address))) as link, ThreadPoolExecutor() as threads:
        sent = threads.submit(lambda: [link.predictions(n, [x], "") for n, x in enumerate(batches)])
        while len(heard) < len(batches):
            assert collector.socket.poll(PATIENCE_MS)
            for message in collector.receive():  # arrays are there until the next one is asked for
                assert isinstance(message, Prediction)
                heard.append(message.outputs[0].copy())
        sent.result()
    for found, expected in zip(heard, batches, strict=True):
        np.testing.assert_array_equal(found, expected)


def test_a_rank_that_got_no_answer_goes_on_without(
    collector: Collector, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("workers.link.PATIENCE_MS", 200)
    heard: list[Message] = []
    with closing(Link(spec_of(0, collector.address))) as link, ThreadPoolExecutor() as threads:
        refused = threads.submit(link.expects, -1)  # the collector answers no nonsense
        while not refused.done():
            collector.socket.poll(50)
            heard += collector.receive()
        sent = threads.submit(link.predictions, 0, [np.zeros(2)], "")
        while not sent.done() or not heard:
            collector.socket.poll(50)
            heard += collector.receive()
    assert [type(message) for message in heard] == [Prediction]


def test_a_rank_of_another_host_sends_its_arrays(
    collector: Collector, connect: Connect
) -> None:
    client = connect(collector.address)
    client.send_multipart(encode(Offered(0, os.getpid(), 0, "slots-of-another-host")))
    while not client.poll(50):
        assert list(collector.receive()) == []  # it is no news
    assert client.recv() == REFUSED
    output = np.arange(3)
    client.send_multipart(encode(Prediction(0, 0, (output,))))
    (prediction,) = receive(collector)
    assert isinstance(prediction, Prediction)
    np.testing.assert_array_equal(prediction.outputs[0], output)


@pytest.mark.parametrize("slot", [0, 1 << 40, -1, "0"])
def test_arrays_that_lie_in_no_memory_are_refused(
    collector: Collector, connect: Connect, slot: int
) -> None:
    client = connect(collector.address)
    with closing(Slots()) as slots:
        slots.put([np.zeros(3)])
        offer = Offered(0, slots.pid, slots.descriptor, slots.name)
        client.send_multipart(encode(offer))
        while not client.poll(50):
            assert list(collector.receive()) == []
        assert client.recv() == ACKNOWLEDGED
        frames = encode(Prediction(0 if slot else 1, 0, (np.zeros(3),)), slot=slot)
        client.send_multipart(frames)
        client.send_multipart(encode(PhaseEntered(0, "done")))
        assert receive(collector) == [PhaseEntered(0, "done")]


def test_what_is_no_prediction_is_acknowledged(collector: Collector, connect: Connect) -> None:
    client = connect(collector.address)
    for message in (
        PhaseEntered(1, "load"),
        Failed(1, "load", "OSError", "no such file", "", 2),
        Done(1, RankReport({}, 0, 0, 0, 1)),
    ):
        client.send_multipart(encode(message))
        assert receive(collector) == [message]
        assert client.poll(PATIENCE_MS)
        assert client.recv() == ACKNOWLEDGED


def test_it_listens_on_this_host_alone(collector: Collector) -> None:
    assert collector.address.endpoint.startswith("tcp://127.0.0.1:")


def test_two_jobs_have_different_ports_and_keys(collector: Collector) -> None:
    with Collector(range(2)) as other:
        assert other.address.endpoint != collector.address.endpoint
        assert other.address.server_key != collector.address.server_key
        assert other.address.secret_key != collector.address.secret_key


def test_a_client_with_a_key_of_its_own_is_turned_away(
    collector: Collector, connect: Connect
) -> None:
    public, secret = (key.decode() for key in zmq.curve_keypair())
    stranger = connect(replace(collector.address, public_key=public, secret_key=secret))
    refused = stranger.get_monitor_socket(zmq.EVENT_HANDSHAKE_FAILED_AUTH)
    stranger.send_multipart(encode(PhaseEntered(0, "load")))
    assert refused.poll(PATIENCE_MS)
    assert recv_monitor_message(refused)["value"] == 400
    stranger.disable_monitor()
    assert list(collector.receive()) == []


def test_a_client_that_does_not_know_the_servers_key_is_turned_away(
    collector: Collector, connect: Connect
) -> None:
    public, _ = (key.decode() for key in zmq.curve_keypair())
    stranger = connect(replace(collector.address, server_key=public))
    stranger.send_multipart(encode(PhaseEntered(0, "load")))
    friend = connect(collector.address)
    friend.send_multipart(encode(PhaseEntered(1, "load")))
    assert receive(collector) == [PhaseEntered(1, "load")]


def test_a_client_without_keys_is_turned_away(collector: Collector, connect: Connect) -> None:
    with zmq.Context() as context, context.socket(zmq.DEALER) as stranger:
        stranger.linger = 0
        stranger.connect(collector.address.endpoint)
        stranger.send_multipart(encode(PhaseEntered(0, "load")))
        friend = connect(collector.address)
        friend.send_multipart(encode(PhaseEntered(1, "load")))
        assert receive(collector) == [PhaseEntered(1, "load")]


def test_garbage_on_the_port_disturbs_nobody(collector: Collector, connect: Connect) -> None:
    host, port = collector.address.endpoint.removeprefix("tcp://").split(":")
    with socket.create_connection((host, int(port))) as stranger:
        stranger.sendall(b"GET / HTTP/1.1\r\n\r\n" + b"\xff" * 4096)
        friend = connect(collector.address)
        friend.send_multipart(encode(PhaseEntered(1, "load")))
        assert receive(collector) == [PhaseEntered(1, "load")]


def test_what_was_said_to_it_once_cannot_be_said_again_by_others(collector: Collector) -> None:
    """A stranger who has recorded all bytes of a rank sends them anew, on a line of its own."""
    host, port = collector.address.endpoint.removeprefix("tcp://").split(":")
    with socket.create_server(("127.0.0.1", 0)) as tap:
        tapped = f"tcp://127.0.0.1:{tap.getsockname()[1]}"
        recorded = bytearray()

        def record() -> None:
            near, _ = tap.accept()
            with near, socket.create_connection((host, int(port))) as far:
                ends = {near: far, far: near}
                while readable := select.select(list(ends), [], [])[0]:
                    for end in readable:
                        data = end.recv(1 << 16)
                        if not data:
                            return
                        ends[end].sendall(data)
                        if end is near:
                            recorded.extend(data)

        recorder = threading.Thread(target=record)
        recorder.start()
        address = replace(collector.address, endpoint=tapped)
        with closing(Link(spec_of(1, address))) as link:
            link.predictions(0, [np.zeros(3)], inputs="ab")
            receive(collector)
        recorder.join()
    with socket.create_connection((host, int(port))) as stranger:
        stranger.sendall(recorded)
        stranger.shutdown(socket.SHUT_WR)
        with suppress(ConnectionError):
            while stranger.recv(1 << 16):  # until the collector hangs up
                pass
    assert list(collector.receive()) == []


@pytest.mark.parametrize(
    "frames",
    [[b"garbage"], [b"{}"], [b""], [b"x"] * 100, encode(PhaseEntered(7, "load"))],
    ids=["garbage", "empty-object", "empty", "many-frames", "foreign-rank"],
)
def test_what_is_no_message_is_refused_and_the_next_one_is_heard(
    collector: Collector, connect: Connect, frames: list[bytes], caplog: pytest.LogCaptureFixture
) -> None:
    client = connect(collector.address)
    client.send_multipart(frames)
    client.send_multipart(encode(PhaseEntered(1, "load")))
    assert receive(collector) == [PhaseEntered(1, "load")]
    assert "refused a message" in caplog.text


def test_a_frame_that_is_too_large_ends_the_connection_and_nothing_else(
    collector: Collector, connect: Connect
) -> None:
    client = connect(collector.address)
    ended = client.get_monitor_socket(zmq.EVENT_DISCONNECTED)
    client.send(bytes(MAX_FRAME_BYTES + 1))
    assert ended.poll(PATIENCE_MS)
    client.disable_monitor()
    friend = connect(collector.address)
    friend.send_multipart(encode(PhaseEntered(1, "load")))
    assert receive(collector) == [PhaseEntered(1, "load")]


def test_a_limit_that_is_too_low_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    def start(authenticator: object) -> None:
        raise RuntimeError("can't start new thread")

    monkeypatch.setattr("launcher.curve.ThreadAuthenticator.start", start)
    with pytest.raises(HostError, match="can't start new thread; allow more .* processes"):
        Collector([0])
