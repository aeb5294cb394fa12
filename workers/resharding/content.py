"""Read a few bytes of saved tensors, to learn what headers do not tell."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence

from workers.resharding.file_bytes import FileBytes, open_bytes
from workers.resharding.index import CheckpointIndex, SavedTensor

SAMPLE_NBYTES = 4096


def sample(index: CheckpointIndex, name: str) -> bytes:
    """Return some bytes of a tensor: of its beginning, its end, and evenly between."""
    with open_bytes(index, few=True) as file:
        return _sample(file, index.tensors[name])


def is_constant(content: bytes) -> bool:
    """Return whether a sample may be of zeros, ones and the like; bytes of weights are various."""
    return len(set(content)) <= 8


def differing(one: CheckpointIndex, other: CheckpointIndex, names: Iterable[str]) -> list[str]:
    """Return those of some tensors whose samples are not the same in two files."""
    with open_bytes(one, few=True) as first, open_bytes(other, few=True) as second:
        return [
            name
            for name in names
            if _sample(first, one.tensors[name]) != _sample(second, other.tensors[name])
        ]


def sampled_ranges(nbytes: int, count: int) -> Sequence[tuple[int, int]]:
    """Return the (start, stop) of ``count`` samples; all of a tensor that has not more."""
    if nbytes <= count * SAMPLE_NBYTES:
        return [(0, nbytes)]
    last = nbytes - SAMPLE_NBYTES
    starts = (last * number // (count - 1) for number in range(count))
    return [(start, start + SAMPLE_NBYTES) for start in starts]


def _sample(file: FileBytes, tensor: SavedTensor, count: int = 3) -> bytes:
    return b"".join(
        bytes(part)
        for start, stop in sampled_ranges(tensor.nbytes, count)
        for part in flat_views(file, tensor, start, stop)
    )


def flat_views(
    file: FileBytes, tensor: SavedTensor, start: int, stop: int
) -> Iterator[memoryview]:
    """Yield the bytes ``start`` .. ``stop`` of a tensor; each view is good until the next."""
    first = 0
    for chunk in tensor.chunks:
        low, high = max(start - first, 0), min(stop - first, chunk.nbytes)
        while low < high:
            end = min(low + file.most_nbytes, high)
            yield file.view(chunk.offset + low, chunk.offset + end)
            low = end
        first += chunk.nbytes
