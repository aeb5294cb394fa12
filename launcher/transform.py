"""Run the tasks of a conversion in several processes, and let the files appear at the end."""

from __future__ import annotations

import multiprocessing
import os
import signal
import threading
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager
from multiprocessing import connection
from pathlib import Path

from workers.resharding.conversion import Conversion
from workers.resharding.convert import carry_out, files_are_there, write_headers
from workers.resharding.errors import TargetWriteError
from workers.resharding.staging import Staging

_work: list[tuple[Conversion, Path]] = []  # of a process that carries out tasks, once it began


def transform(
    conversion: Conversion, target: Path, processes: int, watch: Callable[[int], None]
) -> int:
    """Write all files, and return how many bytes an earlier run had written already.

    Args:
        watch: is told the bytes of each task that is done.

    Raises:
        TargetFolderError: the folder cannot be made.
        TargetWriteError: it cannot be filled.
        ReshardError: the checkpoint changed meanwhile.
    """
    with Staging(target, conversion.digest) as staging:
        _check_space(conversion, staging)
        sizes = [sum(piece.nbytes for piece in task) for task in conversion.tasks]
        if staging.done and not files_are_there(conversion, staging.folder):
            staging.start_over()
        kept = sum(sizes[number] for number in staging.done)
        watch(kept)
        try:
            write_headers(conversion, staging.folder)
            rest = [number for number in range(len(sizes)) if number not in staging.done]
            for number in _carry_out_all(conversion, rest, staging.folder, processes):
                staging.finish(number)
                watch(sizes[number])
        except OSError as error:
            raise TargetWriteError(str(target), f"cannot be written: {error.strerror}") from error
        except BrokenProcessPool as error:
            reason = "a process that wrote it was killed, likely out of memory"
            raise TargetWriteError(str(target), reason) from error
        staging.commit()
    return kept


def _check_space(conversion: Conversion, staging: Staging) -> None:
    file_system = os.statvfs(staging.folder)
    free = file_system.f_bavail * file_system.f_frsize
    held = sum(file.stat().st_blocks * 512 for file in staging.folder.rglob("*") if file.is_file())
    if conversion.nbytes > free + held:
        reason = f"{conversion.nbytes:,} bytes are needed, {free + held:,} are free: make room"
        raise TargetWriteError(str(staging.target), reason)


def _carry_out_all(
    conversion: Conversion, numbers: Sequence[int], folder: Path, processes: int
) -> Iterator[int]:
    """Yield the number of each task when it is done."""
    if min(processes, len(numbers)) <= 1:
        for number in numbers:
            carry_out(conversion, number, folder)
            yield number
        return
    pool = ProcessPoolExecutor(
        min(processes, len(numbers)),
        # a fork would inherit the thread that draws the progress bar
        mp_context=multiprocessing.get_context("spawn"),
        initializer=_begin,
        initargs=(conversion, folder),
    )
    try:
        with _without_interrupts():  # the parent hears them, and ends its children
            futures = {pool.submit(_carry_out_one, number): number for number in numbers}
        for future in as_completed(futures):
            future.result()
            yield futures[future]
    finally:
        pool.shutdown(cancel_futures=True)


@contextmanager
def _without_interrupts() -> Iterator[None]:
    """Hold Ctrl-C back until the block ends; processes that are started in it never hear of it."""
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def _begin(conversion: Conversion, folder: Path) -> None:
    _work.append((conversion, folder))
    threading.Thread(target=_end_with_parent, daemon=True).start()


def _end_with_parent() -> None:
    """Wait until the parent is gone, however it ended, and end this process, too."""
    parent = multiprocessing.parent_process()
    if parent is not None:
        connection.wait([parent.sentinel])
        os._exit(1)


def _carry_out_one(number: int) -> None:
    ((conversion, folder),) = _work
    carry_out(conversion, number, folder)
