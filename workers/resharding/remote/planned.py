"""Have all that a plan reads of remote files here before anything of it is copied."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import FIRST_EXCEPTION, ThreadPoolExecutor, wait
from contextlib import ExitStack, contextmanager

from workers.resharding.plan import LoadPlan
from workers.resharding.remote.address import Location, RemoteFile
from workers.resharding.remote.mirror import GAP_NBYTES, Mirror, open_mirror
from workers.resharding.remote.ranges import Range, merged, runs, size, without
from workers.resharding.strided import box_of_block

_FILES_AT_ONCE = 4
_WATCH_S = 1.0  # between two words about how far it is

Watch = Callable[[int, int], None]  # is told how many bytes are here, of how many


@contextmanager
def fetched(plan: LoadPlan, watch: Watch | None = None) -> Iterator[Mapping[Location, Mirror]]:
    """Open the remote files of a plan, with all that it reads of them; until the end, they stay.

    Encrypted files are left out: of them, blocks are fetched when they are decrypted.

    Args:
        watch: is called now and then, by this thread, while files are fetched.
    """
    wanted = planned_ranges(plan)
    with ExitStack() as stack:
        mirrors: dict[Location, Mirror] = {
            file: stack.enter_context(open_mirror(file)) for file in wanted
        }
        if wanted:
            # Ranks begin with different files: of one file, only one process fetches at a time.
            order = list(wanted)
            first = plan.rank % len(order)
            rotated = order[first:] + order[:first]
            _fetch([(mirrors[file], wanted[file]) for file in rotated], watch)
        yield mirrors


def _fetch(wanted: Sequence[tuple[Mirror, Sequence[Range]]], watch: Watch | None) -> None:
    total, known = sum(size(ranges) for _, ranges in wanted), 0
    with ThreadPoolExecutor(_FILES_AT_ONCE) as pool:
        files = [pool.submit(mirror.ensure, ranges) for mirror, ranges in wanted]
        try:
            while watch is not None and wait(files, _WATCH_S, FIRST_EXCEPTION).not_done:
                if any(file.done() and file.exception() for file in files):
                    break
                # Another process may be fetching, and of what this one does not want: it goes on.
                held = [mirror.held() for mirror, _ in wanted]
                if sum(map(size, held)) != known:
                    known = sum(map(size, held))
                    absent = zip((ranges for _, ranges in wanted), held)
                    watch(total - sum(size(without(*pair)) for pair in absent), total)
            for file in files:
                file.result()
        finally:
            pool.shutdown(cancel_futures=True)


def planned_ranges(plan: LoadPlan) -> dict[RemoteFile, list[Range]]:
    """Return what a plan reads of each remote file, with the gaps that are worth fetching."""
    ranges: dict[RemoteFile, list[Range]] = defaultdict(list)
    for part in plan.slices:
        for read in part.reads:
            if isinstance(read.path, RemoteFile) and plan.files[read.path].cipher is None:
                box = box_of_block(read.offset, read.shape, read.source, part.itemsize)
                ranges[read.path] += runs(box, GAP_NBYTES)
    return {file: merged(each, GAP_NBYTES) for file, each in ranges.items()}
