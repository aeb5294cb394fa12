"""Have all that a plan reads of remote files here before anything of it is copied."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager

from workers.resharding.plan import LoadPlan
from workers.resharding.remote.address import Location, RemoteFile
from workers.resharding.remote.mirror import GAP_NBYTES, Mirror, open_mirror
from workers.resharding.remote.ranges import Range, merged, runs
from workers.resharding.strided import box_of_block

_FILES_AT_ONCE = 4


@contextmanager
def fetched(plan: LoadPlan) -> Iterator[Mapping[Location, Mirror]]:
    """Open the remote files of a plan, with all that it reads of them; until the end, they stay.

    Encrypted files are left out: of them, blocks are fetched when they are decrypted.
    """
    wanted = planned_ranges(plan)
    with ExitStack() as stack:
        mirrors: dict[Location, Mirror] = {
            file: stack.enter_context(open_mirror(file)) for file in wanted
        }
        if mirrors:
            # Ranks begin with different files: of one file, only one process fetches at a time.
            order = list(wanted)
            first = plan.rank % len(order)
            with ThreadPoolExecutor(_FILES_AT_ONCE) as pool:
                rotated = order[first:] + order[:first]
                list(pool.map(lambda file: mirrors[file].ensure(wanted[file]), rotated))
        yield mirrors


def planned_ranges(plan: LoadPlan) -> dict[RemoteFile, list[Range]]:
    """Return what a plan reads of each remote file, with the gaps that are worth fetching."""
    ranges: dict[RemoteFile, list[Range]] = defaultdict(list)
    for part in plan.slices:
        for read in part.reads:
            if isinstance(read.path, RemoteFile) and plan.files[read.path].cipher is None:
                box = box_of_block(read.offset, read.shape, read.source, part.itemsize)
                ranges[read.path] += runs(box, GAP_NBYTES)
    return {file: merged(each, GAP_NBYTES) for file, each in ranges.items()}
