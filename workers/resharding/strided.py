"""Divide the bytes of a box that lies in a file into pieces that are worth one read each."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Any, NamedTuple

from workers.resharding.region import Region

if TYPE_CHECKING:
    from numpy.typing import NDArray


class Strided(NamedTuple):
    """Elements that lie in a file at even distances."""

    offset: int  # in the file, of the first element
    shape: tuple[int, ...]
    strides: tuple[int, ...]  # in bytes, for each dim
    itemsize: int

    @property
    def nbytes(self) -> int:
        count = self.itemsize
        for size in self.shape:
            count *= size
        return count

    @property
    def span(self) -> int:
        """The bytes from the first element to the last."""
        return self.itemsize + sum(
            (size - 1) * stride for size, stride in zip(self.shape, self.strides)
        )

    @property
    def stop(self) -> int:
        return self.offset + self.span

    def part(self, first: int, last: int) -> Strided:
        """Return some indices of dim 0."""
        offset = self.offset + first * self.strides[0]
        return Strided(offset, (last - first, *self.shape[1:]), self.strides, self.itemsize)

    def row(self, index: int) -> Strided:
        """Return one index of dim 0, without that dim."""
        offset = self.offset + index * self.strides[0]
        return Strided(offset, self.shape[1:], self.strides[1:], self.itemsize)


def box_of_block(offset: int, block: tuple[int, ...], box: Region, itemsize: int) -> Strided:
    """Return where a box lies, of a block that is a run of the file in row-major order."""
    strides, step = [], itemsize
    for size in reversed(block):
        strides.append(step)
        step *= size
    strides.reverse()
    first = sum(start * stride for start, stride in zip(box.start, strides))
    return Strided(offset + first, box.shape, tuple(strides), itemsize)


def pieces(
    target: NDArray[Any], source: Strided, most_nbytes: int, dense_nbytes: int
) -> Iterator[tuple[NDArray[Any], Strided]]:
    """Yield pieces of a copy that span at most ``most_nbytes`` of the file each.

    Args:
        dense_nbytes: rows of at least this size are not read together with the gaps between
            them.
    """
    if not source.shape or (source.span <= most_nbytes and _close(source, dense_nbytes)):
        yield target, source
        return
    rows = most_nbytes // source.strides[0]
    if rows and _close(source, dense_nbytes):
        for first in range(0, source.shape[0], rows):
            last = min(first + rows, source.shape[0])
            yield target[first:last], source.part(first, last)
    else:
        for index in range(source.shape[0]):  # the dots: of one dim, an element stays an array
            yield from pieces(target[index, ...], source.row(index), most_nbytes, dense_nbytes)


def _close(source: Strided, dense_nbytes: int) -> bool:
    """Return whether the gaps between the rows are none, or cheaper than a read for each row."""
    return source.row(0).nbytes < dense_nbytes or source.span == source.nbytes
