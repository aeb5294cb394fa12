"""Decide which samples are this rank's when the ranks share the data, and where outputs belong."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from typing import Any, Protocol

import numpy as np

from workers.data import array_of, arrays_of, batches_of, samples_of
from workers.data_files import DataFiles, is_data_file
from workers.errors import InputError
from workers.protocol import Rows, checksum
from workers.spec import WorkerSpec
from workers.user_data import is_sharded, make_whole_data, samples_of_all_shards

Batch = tuple[Any, ...]


class Share(Protocol):
    """How this rank gets its part of the data."""

    @property
    def samples(self) -> int | None:
        """How many the whole data have, once all batches were seen; None: nobody knows."""

    @property
    def seen(self) -> str:
        """A checksum of what must be the same on all ranks."""

    @property
    def batch_rows(self) -> int | None:
        """How many samples a batch of the whole has; None: this rank's batches are some of them."""

    def own(self, count: int) -> int:
        """Return how many of so many batches are of this share."""

    def of(self, batches: Iterable[Batch]) -> Iterator[tuple[Batch, Rows]]:
        """Yield this rank's batches and the rows of the whole that they are."""


def share_of(spec: WorkerSpec) -> Share:
    """Return how the rank gets its share: from the user's own callable, or dealt by us."""
    if is_data_file(spec.predict_data):
        return Picked(spec)
    return Sharded(spec) if is_sharded(spec) else Dealt(spec)


def own_batches(spec: WorkerSpec, count: int) -> range:
    """Return the numbers of the batches that a rank predicts."""
    return _numbers(spec, spec.first_batch, count)


def delivered_before(spec: WorkerSpec) -> int:
    """Return how many batches of this rank an earlier run has delivered."""
    return len(_numbers(spec, 0, spec.first_batch))


def _numbers(spec: WorkerSpec, start: int, stop: int) -> range:
    if not spec.shares_data:
        return range(start, stop)
    return range(start + (spec.rank - start) % spec.rank_size, stop, spec.rank_size)


class Picked:
    """Every rank reads its own batches from files, and no others."""

    batch_rows = None

    def __init__(self, spec: WorkerSpec) -> None:
        self._spec, self._files = spec, DataFiles(spec.predict_data, spec.batch_size)
        self.samples, self.seen = self._files.samples, ""

    def own(self, count: int) -> int:
        return count

    def of(self, batches: Iterable[Batch]) -> Iterator[tuple[Batch, Rows]]:
        for number, batch in zip(own_batches(self._spec, len(self._files)), batches):
            yield batch, Rows(self._files.first_row(number))


class Dealt:
    """Every rank sees all batches and predicts each n-th of them, whole as they are."""

    batch_rows = None

    def __init__(self, spec: WorkerSpec) -> None:
        self._spec = spec
        self.samples, self.seen = 0, ""

    def own(self, count: int) -> int:
        return len(own_batches(self._spec, count))

    def of(self, batches: Iterable[Batch]) -> Iterator[tuple[Batch, Rows]]:
        for number, batch in enumerate(batches):
            start, self.samples = self.samples, self.samples + samples_of(batch)
            self.seen = checksum(self.seen.encode(), *arrays_of(batch))
            own = number % self._spec.rank_size == self._spec.rank
            if own and number >= self._spec.first_batch:
                yield batch, Rows(start)


class Sharded:
    """The user's callable gives each rank each n-th sample, as a mindspore.dataset does."""

    def __init__(self, spec: WorkerSpec) -> None:
        self._spec = spec
        self.samples, self.seen = samples_of_all_shards(spec), ""
        self.batch_rows: int | None = None

    def own(self, count: int) -> int:
        return count - delivered_before(self._spec)

    def of(self, batches: Iterable[Batch]) -> Iterator[tuple[Batch, Rows]]:
        start, step = self._spec.rank, self._spec.rank_size
        for number, batch in enumerate(batches):
            if number == 0:
                self._require_each_nth(batch)
            if number >= delivered_before(self._spec):
                yield batch, Rows(start, step)
            start += step * samples_of(batch)

    def _require_each_nth(self, batch: Batch) -> None:
        """Compare the first samples with those of the whole; a shard may not be a block of it."""
        spec = self._spec
        whole = next(batches_of(make_whole_data(spec), spec.predict_data, spec.batch_size))
        self.batch_rows = samples_of(whole)
        for value, of_whole in zip(map(array_of, batch), map(array_of, whole)):
            expected = of_whole[spec.rank :: spec.rank_size][: len(value)]
            if not np.array_equal(value[: len(expected)], expected):
                raise InputError(
                    f"{spec.predict_data}: shard {spec.rank} of {spec.rank_size} does not start"
                    f" with samples {spec.rank}, {spec.rank + spec.rank_size}, ... of the whole;"
                    " give shard k each num_shards-th sample from k on, unshuffled, or do without"
                    " num_shards and shard_id: then the launcher deals the batches"
                )


def require_row_for_each_sample(
    network: str, outputs: Sequence[np.ndarray], batch: Batch
) -> None:
    """Check that the outputs of a share can be put in the order of the input.

    Raises:
        InputError: they have not one row for each sample.
    """
    samples = samples_of(batch)
    for index, output in enumerate(outputs):
        if output.shape[:1] != (samples,):
            raise InputError(
                f"{network}: output {index} has shape {output.shape} for {samples} samples, where"
                " ranks that share the data need a row for each; use semi_auto_parallel"
            )
