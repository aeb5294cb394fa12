"""Decide whether the shares of all ranks make the whole, each row of it once. No I/O."""

from __future__ import annotations

import heapq
from array import array
from collections.abc import Mapping, Sequence
from itertools import chain

from launcher.agreement import SAME_DATA, VerificationError
from launcher.journal import NOTHING, Reached
from workers.protocol import RankReport, Rows

_FIX = (
    "; data callables that take num_shards and shard_id must give shard k the samples k,"
    " k + num_shards, ..., unshuffled, and drop no remainder"
)


class Shares:
    """Which rows of the whole outputs the ranks have delivered."""

    def __init__(
        self, ranks: Sequence[int], before: Reached = NOTHING, labelled: bool = False
    ) -> None:
        """Begin behind what an earlier run has verified.

        Args:
            labelled: batches are evaluated, so a later run has to know where each one ends.
        """
        self._labelled = labelled
        self._uniform = before.batches  # so many of the first batches had as many rows
        self.rows = before.rows[0] if before.rows else 0  # that are there without a gap
        self.batches = before.batches  # that were delivered
        self._interleaved = False  # each rank has each n-th row, and not whole batches
        self._before = before
        self._ends = array("q")  # the row behind each batch of the part without a gap, since then
        self._batch_rows = self.rows // before.batches if before.batches else 0  # of a full one
        dealt = range(before.batches)
        self._batches = {rank: len(dealt[rank :: len(ranks)]) for rank in sorted(ranks)}
        self._samples = dict.fromkeys(self._batches, self.rows // len(ranks))
        self._ahead: list[tuple[int, int]] = []  # first row and end of batches behind a gap

    def add(self, rank: int, batch: int, rows: Rows, count: int) -> None:
        """Take in that a rank has delivered ``count`` rows.

        Raises:
            VerificationError: it is not its next batch, or others had delivered the rows.
        """
        due = self._batches[rank]
        if batch != due:
            raise VerificationError(rank, batch, f"delivered it where batch {due} was due")
        self._interleaved = rows.step > 1
        if self._interleaved:
            if rows.start != rank + self._samples[rank] * rows.step:
                raise VerificationError(rank, batch, f"is not of its share{_FIX}")
        elif rows.start < self.rows:
            raise VerificationError(rank, batch, f"has row {rows.start}, which was there already")
        self._batches[rank] += 1
        self._samples[rank] += count
        self._batch_rows = self._batch_rows or count
        self.batches += 1
        if self._interleaved:
            self.rows = min(n * rows.step + rank for rank, n in self._samples.items())
        else:
            heapq.heappush(self._ahead, (rows.start, rows.start + count))
            while self._ahead and self._ahead[0][0] == self.rows:
                start, self.rows = heapq.heappop(self._ahead)
                number = self._before.batches + len(self._ends)
                if self._uniform == number and start * (number + 1) == self.rows * number:
                    self._uniform += 1
                self._ends.append(self.rows)

    def reached(self, files: int) -> Reached:
        """Return what a later run may count on: all before the last batch of the whole part."""
        if self._interleaved:
            batches = max(0, min(self._batches.values()) - 1) * len(self._batches)
            rows = batches * self._batch_rows
        else:
            whole = max(0, len(self._ends) - 1)
            if self._labelled:
                whole = min(whole, self._uniform - self._before.batches)
            batches = self._before.batches + whole
            rows = self._ends[whole - 1] if whole else sum(self._before.rows[:1])
        return Reached(batches, (rows,) * files, "")

    @property
    def batch_ends(self) -> Sequence[int]:
        """The row behind each batch, as one process would have had them; once all are there."""
        if not self._interleaved:
            return [*chain(*self._before.uniform_ends()[:1]), *self._ends]
        return [*range(self._batch_rows, self.rows, self._batch_rows), self.rows]

    def finish(self, reports: Mapping[int, RankReport]) -> None:
        """Check that all rows are there; cut off what MindSpore filled up shards with.

        Raises:
            VerificationError: a rank is missing, rows are, or ranks saw different data.
        """
        for rank, delivered in self._batches.items():
            if rank not in reports:
                raise VerificationError(rank, delivered, "is missing: it never said done")
            if reports[rank].batches != delivered:
                claimed = reports[rank].batches
                what = f"predicted {claimed} batches, but {delivered} arrived"
                raise VerificationError(rank, delivered, what)
        _require_same(reports)
        whole = next(iter(reports.values())).samples
        if self._interleaved:
            self._finish_shards(whole)
            told = (report.batch_rows for report in reports.values())
            self._batch_rows = max(filter(None, told), default=self._batch_rows)
        elif whole != self.rows or self._ahead:
            rank = min(self._batches, key=lambda rank: self._batches[rank])
            what = f"left a gap: of {whole} rows the first {self.rows} are there"
            raise VerificationError(rank, self._batches[rank], what)

    def _finish_shards(self, whole: int | None) -> None:
        ranks = len(self._samples)
        filled_up = whole is not None
        if whole is None:
            whole = sum(self._samples.values())
        for rank, samples in self._samples.items():
            wanted = -(-(whole - rank) // ranks)
            allowed = {wanted, -(-whole // ranks)} if filled_up else {wanted}
            if samples not in allowed:
                what = f"has {samples} of {whole} samples, where {wanted} are its share{_FIX}"
                raise VerificationError(rank, self._batches[rank], what)
        self.rows = whole


def _require_same(reports: Mapping[int, RankReport]) -> None:
    first, *others = sorted(reports)
    for rank in others:
        if (reports[rank].samples, reports[rank].seen) != (
            reports[first].samples,
            reports[first].seen,
        ):
            what = f"was given other data than rank {first}{SAME_DATA}"
            raise VerificationError(rank, reports[rank].batches, what)
