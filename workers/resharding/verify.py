"""Compare what files say of their content, and what they must share, with the content itself."""

from __future__ import annotations

import math
import zlib
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from functools import partial
from itertools import islice
from types import MappingProxyType

from workers.resharding.ckpt_format import CRC_FOOTER_SIZE
from workers.resharding.content import flat_views, is_constant, sample, sampled_ranges
from workers.resharding.digests import verify_sha256
from workers.resharding.errors import (
    ChecksumError,
    ReplicaMismatchError,
    ReshardError,
    SharedFileError,
)
from workers.resharding.file_bytes import FileBytes, open_bytes
from workers.resharding.index import CheckpointIndex
from workers.resharding.layout import Layout
from workers.resharding.remote.address import RemoteFile
from workers.resharding.saved import SavedParameter, SlicedCheckpoint

_WINDOW_NBYTES = 4 << 20
_SAMPLES = 16  # of each slice, 4 KiB each
_LOOKED_AT, _OF_ONE_LAYOUT = 4, 2  # parameters, if nobody asked for a check


def verify_crc(checkpoint: SlicedCheckpoint) -> int:
    """Read every file that carries a checksum to its end; return how many there are.

    Raises:
        ChecksumError: the content of a file is not what it was when it was saved.
    """
    files = [index for index in checkpoint.files.values() if index.crc32 is not None]
    for index in files:
        found = _crc32(index)
        if found != index.crc32:
            raise ChecksumError(str(index.path), index.crc32 or 0, found)
    return len(files)


def verify_replicas(checkpoint: SlicedCheckpoint, full: bool = False) -> int:
    """Compare slices that several ranks hold, and return how many pairs were compared.

    Args:
        full: compare all bytes; otherwise some from all over each slice.

    Raises:
        ReplicaMismatchError: two of them differ.
    """
    return _compare_replicas(checkpoint, checkpoint.parameters, full)


def find_doubt(checkpoint: SlicedCheckpoint) -> ReshardError | None:
    """Return what a look at a few large parameters finds: files in the wrong order, or copies.

    It takes next to no time, so that it can be done when nobody asked for a check.
    """
    parameters, files = checkpoint.parameters, checkpoint.files.values()
    if any(index.cipher or isinstance(index.path, RemoteFile) for index in files):
        return None  # a few bytes of such a file are not cheap
    largest = list(_telling(parameters))
    held = ((name, len(parameters[name].holders)) for name in largest)
    copied = (name for name, count in held if count > parameters[name].layout.part_count)
    split = (name for name in largest if parameters[name].layout.part_count > 1)
    try:
        _compare_replicas(checkpoint, islice(copied, _LOOKED_AT), full=False)
        for name in islice(split, _LOOKED_AT):
            _refuse_copies(checkpoint, name)
    except (ReplicaMismatchError, SharedFileError) as error:
        return error
    return None


def _telling(parameters: Mapping[str, SavedParameter]) -> Iterator[str]:
    """Yield the parameters of the strategy, the largest first, and two of each layout at most.

    What is wrong with the files shows in all of one layout; a second one, as the first may be all
    zeros.
    """
    named = [name for name, saved in parameters.items() if saved.in_strategy]
    seen: Counter[Layout] = Counter()
    for name in sorted(named, key=lambda name: -math.prod(parameters[name].full_shape)):
        seen[parameters[name].layout] += 1
        if seen[parameters[name].layout] <= _OF_ONE_LAYOUT:
            yield name


def _refuse_copies(checkpoint: SlicedCheckpoint, name: str) -> None:
    """Refuse files with one content, no constant, in the place of different slices."""
    seen: dict[bytes, tuple[int, int]] = {}
    for number, ranks in enumerate(checkpoint.parameters[name].replicas):
        for rank in ranks:
            index = checkpoint.files[rank]
            content = sample(index, name)
            group, other = seen.setdefault(content, (number, rank))
            if group != number and not is_constant(content):
                path = str(checkpoint.files[other].path)
                raise SharedFileError(name, other, path, rank, str(index.path))


CHECKS: Mapping[str, Callable[[SlicedCheckpoint], int]] = MappingProxyType(
    {
        "crc": verify_crc,
        "sha256": verify_sha256,
        "replicas": verify_replicas,
        "replicas=full": partial(verify_replicas, full=True),
    }
)


def verify(checkpoint: SlicedCheckpoint, checks: Iterable[str]) -> dict[str, int]:
    """Make some of CHECKS; return how many files, or pairs of slices, each of them compared.

    Raises:
        ChecksumError, DigestError, ReplicaMismatchError: a check failed.
    """
    return {check: CHECKS[check](checkpoint) for check in checks}


def parse_checks(given: str | Iterable[str]) -> tuple[str, ...]:
    """Return the checks that ``crc,replicas=full``, or a list of such texts, names; each once.

    Raises:
        ValueError: what is wrong, and what to try.
    """
    texts = [given] if isinstance(given, str) else given
    names = [name.strip() for text in texts for name in text.split(",")]
    for name in names:
        if name not in CHECKS:
            raise ValueError(f"{name!r} is no check", f"known are {', '.join(CHECKS)}")
    return tuple(dict.fromkeys(names))


def _compare_replicas(checkpoint: SlicedCheckpoint, names: Iterable[str], full: bool) -> int:
    pairs: dict[tuple[int, int], list[str]] = defaultdict(list)
    for name in names:
        saved = checkpoint.parameters[name]
        if saved.in_strategy:  # random states and counters of ranks may differ
            for first, *others in saved.replicas:
                for other in others:
                    pairs[first, other].append(name)
    for (first, other), shared in pairs.items():
        _compare(checkpoint.files[first], checkpoint.files[other], shared, full)
    return sum(map(len, pairs.values()))


def _crc32(index: CheckpointIndex) -> int:
    with open_bytes(index) as file:
        if index.format == "ckpt":
            return _add(file, 0, index.identity.size - CRC_FOOTER_SIZE, 0)
        crc32 = 0
        for name in sorted(index.tensors):
            crc32 = zlib.crc32(name.encode(), crc32)
            for chunk in index.tensors[name].chunks:
                crc32 = _add(file, chunk.offset, chunk.offset + chunk.nbytes, crc32)
        return crc32


def _add(file: FileBytes, start: int, stop: int, crc32: int) -> int:
    for first in range(start, stop, _WINDOW_NBYTES):
        crc32 = zlib.crc32(file.view(first, min(first + _WINDOW_NBYTES, stop)), crc32)
    return crc32


def _compare(
    one: CheckpointIndex, other: CheckpointIndex, names: Iterable[str], full: bool
) -> None:
    with open_bytes(one) as first, open_bytes(other) as second:
        for name in names:
            nbytes = one.tensors[name].nbytes
            for start, stop in _ranges(nbytes, full):
                left = b"".join(map(bytes, flat_views(first, one.tensors[name], start, stop)))
                right = b"".join(map(bytes, flat_views(second, other.tensors[name], start, stop)))
                if left != right:
                    offset = next(i for i, (a, b) in enumerate(zip(left, right)) if a != b)
                    raise ReplicaMismatchError(
                        name, str(one.path), str(other.path), start + offset
                    )


def _ranges(nbytes: int, full: bool) -> Sequence[tuple[int, int]]:
    if not full:
        return sampled_ranges(nbytes, _SAMPLES)
    starts = range(0, nbytes, _WINDOW_NBYTES)
    return [(start, min(start + _WINDOW_NBYTES, nbytes)) for start in starts]
