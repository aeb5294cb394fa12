"""Measure what the collector adds: a rank's outputs through its link into predictions.npy.

    python benchmarks/collector.py [FOLDER]

Beside it stand the limits: one copy in memory, and the kernel writing the same bytes to a file.
"""

from __future__ import annotations

import os
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ProcessPoolExecutor
from contextlib import closing
from multiprocessing import get_context
from pathlib import Path

import numpy as np

from launcher.collector import Collector
from launcher.prediction_files import CommonFiles
from launcher.run_folder import RunFolder
from workers.link import Link
from workers.protocol import Message, PhaseEntered, Prediction
from workers.slots import SLOTS
from workers.spec import CollectorAddress, WorkerSpec

BATCH = np.ones((1024, 8192), np.float32)  # 32 MiB
BATCHES = 32
REPEATS = 3  # the best one counts: other processes only make it slower


def main() -> None:
    folder = Path(sys.argv[1]) if len(sys.argv) > 1 else Path(tempfile.gettempdir())
    target = np.empty_like(BATCH)
    copy = best(lambda: repeat(lambda: np.copyto(target, BATCH)))
    through = best(lambda: deliver(lambda message: None))
    print(f"{BATCHES} batches of {BATCH.nbytes >> 20} MiB, best of {REPEATS}\n")
    print(f"copy in memory (np.copyto)             {copy:6.2f} GB/s")
    print(f"rank -> collector                      {through:6.2f} GB/s  {through / copy:.0%} of it")
    with tempfile.TemporaryDirectory(dir=folder) as scratch:
        write = best(lambda: write_plainly(Path(scratch)))
        files = best(lambda: deliver_to_files(Path(scratch)))
    print(f"write to a file (os.pwrite)            {write:6.2f} GB/s")
    print(f"rank -> collector -> predictions.npy   {files:6.2f} GB/s  {files / write:.0%} of it")


def best(measure: Callable[[], float]) -> float:
    """Return the highest of some measured rates, in GB/s."""
    return max(BATCHES * BATCH.nbytes / measure() / 1e9 for _ in range(REPEATS))


def repeat(action: Callable[[], object]) -> float:
    started_s = time.perf_counter()
    for _ in range(BATCHES):
        action()
    return time.perf_counter() - started_s


def write_plainly(folder: Path) -> float:
    file = os.open(folder / "plain", os.O_RDWR | os.O_CREAT | os.O_TRUNC)
    try:
        offsets = iter(range(0, BATCHES * BATCH.nbytes, BATCH.nbytes))
        return repeat(lambda: os.pwrite(file, BATCH, next(offsets)))
    finally:
        os.close(file)


def deliver_to_files(folder: Path) -> float:
    run = RunFolder(folder)
    run.create()
    with closing(CommonFiles([0], run)) as files:
        return deliver(lambda message: files.take(message))


def deliver(take: Callable[[Prediction], object]) -> float:
    """Return the seconds from the first batch to the last, sent by a process of its own."""
    with Collector([0]) as collector, ProcessPoolExecutor(1, get_context("fork")) as rank:
        sent = rank.submit(send, collector.address)
        messages = heard(collector)
        for _ in range(SLOTS):  # the first touch of shared memory makes it
            take(first_prediction(messages))
        started_s = time.perf_counter()
        for _ in range(BATCHES):
            take(first_prediction(messages))
        seconds = time.perf_counter() - started_s
        next(message for message in messages if isinstance(message, PhaseEntered))
        sent.result()
    return seconds


def send(address: CollectorAddress) -> None:
    spec = WorkerSpec(
        rank=0,
        rank_size=1,
        device_id=0,
        server_id="localhost",
        device="cpu",
        network="",
        predict_data="",
        collector=address,
    )
    with closing(Link(spec)) as link:
        for number in range(SLOTS + BATCHES):
            link.predictions(number, [BATCH], "")
        link.phase("done")  # returns when the collector has everything


def heard(collector: Collector) -> Iterator[Message]:
    while True:
        collector.socket.poll()
        yield from collector.receive()


def first_prediction(messages: Iterator[Message]) -> Prediction:
    return next(message for message in messages if isinstance(message, Prediction))


if __name__ == "__main__":
    main()
