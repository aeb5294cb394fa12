"""Turn what the ranks deliver into prediction files, and give them their names once verified.

Outputs are joined along their first dim over the batches. A 0-d output is stacked, and stays
0-d when there was one batch only. Each batch is written as it comes; what a file holds beyond
the verified batches is cut off in the end. Parent only.
"""

from __future__ import annotations

from array import array
from collections import deque
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Protocol

from launcher.agreement import Agreement, VerificationError
from launcher.journal import NOTHING, Journal, Reached
from launcher.result_files import ResultFiles
from launcher.run_folder import RunFolder
from launcher.shares import Shares
from workers.protocol import OWNER_RANK, Prediction, PredictionDigest, RankReport


class PredictionFiles(Protocol):
    """The predictions of one run."""

    @property
    def batches(self) -> int:
        """How many batches are verified."""

    @property
    def batch_ends(self) -> Sequence[Sequence[int]]:
        """For each file, the row behind each verified batch."""

    def take(self, message: Prediction | PredictionDigest) -> None:
        """Write the batch, if it is one, and verify what can be verified of it.

        Raises:
            VerificationError: it does not fit what other ranks delivered, or came before.
            OSError: it cannot be written.
        """

    def publish(self, reports: Mapping[int, RankReport]) -> tuple[Path, ...]:
        """Check that nothing is missing, and give the files their names.

        Raises:
            VerificationError: a rank or a batch is missing.
            OSError: the files cannot be written.
        """

    def salvage(self) -> tuple[Path, ...]:
        """Keep the verified batches of a run that failed; return the partial files."""

    def close(self) -> None:
        """Let go of the files."""


class CommonFiles:
    """Every rank predicts every batch: rank 0 sends the outputs, and all must agree on them."""

    def __init__(
        self,
        ranks: Sequence[int],
        folder: RunFolder,
        labelled: bool = False,
        journal: Journal | None = None,
        before: Reached = NOTHING,
    ) -> None:
        self._agreement = Agreement(ranks, before.batches)
        self._results = ResultFiles(folder, labelled, before.rows)
        self._journal, self._before = journal, before
        # of each unverified batch: the rows behind it, and what it was predicted from
        self._written: deque[tuple[tuple[int, ...], str]] = deque()
        self._verified = before.rows  # rows behind the last verified batch
        self._uniform = True  # all batches so far had as many rows
        self._labelled = labelled
        self.batch_ends = [array("q", ends) for ends in before.uniform_ends()] if labelled else []

    @property
    def batches(self) -> int:
        return self._agreement.batches

    def take(self, message: Prediction | PredictionDigest) -> None:
        rank, batch = message.rank, message.batch
        if isinstance(message, Prediction) != (rank == OWNER_RANK):
            raise VerificationError(rank, batch, f"sent a {type(message).__name__}")
        verified = self.batches
        if isinstance(message, PredictionDigest):
            self._agreement.add(message)
        else:
            self._write(message)
            self._agreement.add(PredictionDigest.of(rank, batch, message.outputs, message.inputs))
        if self.batches > verified:
            self._show_verified()

    def publish(self, reports: Mapping[int, RankReport]) -> tuple[Path, ...]:
        self._agreement.finish(reports)
        self._results.commit(self._verified, scalars=self.batches == 1)
        return self._results.name()

    def salvage(self) -> tuple[Path, ...]:
        if not self._results.paths or not self.batches:
            self._results.discard()
            return ()
        with suppress(OSError):  # the cause is told already; the files show what is verified
            self._results.commit(self._verified, scalars=self.batches == 1)
        return self._results.paths

    def close(self) -> None:
        self._results.close()

    def _write(self, message: Prediction) -> None:
        goes_on = message.batch == self._before.batches
        if goes_on and self._before.inputs not in ("", message.inputs):
            raise VerificationError(
                message.rank,
                message.batch,
                "has other inputs than in the run that it should go on from; start over without"
                " --resume",
            )
        self._results.accept(message.rank, message.batch, message.outputs)
        self._written.append((self._results.append(message.outputs), message.inputs))

    def _show_verified(self) -> None:
        """Let readers see the batch that all ranks agree on now, and a later run go on from it."""
        before = self._verified
        self._verified, inputs = self._written.popleft()
        self.batch_ends = self.batch_ends or [array("q") for _ in self._verified]
        for ends, row in zip(self.batch_ends, self._verified, strict=True):
            ends.append(row)
        self._results.show(self._verified)
        if self._journal is not None and (self._uniform or not self._labelled):
            self._journal.write(Reached(self.batches - 1, before, inputs))
        sizes = ((b * self.batches, v * (self.batches - 1)) for b, v in zip(before, self._verified))
        self._uniform = self._uniform and all(mean == now for mean, now in sizes)


class SharedFiles:
    """Every rank predicts a share of the samples, and says which rows they are."""

    def __init__(
        self,
        ranks: Sequence[int],
        folder: RunFolder,
        labelled: bool = False,
        journal: Journal | None = None,
        before: Reached = NOTHING,
    ) -> None:
        self._shares = Shares(ranks, before, labelled)
        self._results = ResultFiles(folder, labelled, before.rows)
        self._journal = journal

    @property
    def batches(self) -> int:
        return self._shares.batches

    @property
    def batch_ends(self) -> Sequence[Sequence[int]]:
        return [self._shares.batch_ends] * len(self._results.paths)

    def take(self, message: Prediction | PredictionDigest) -> None:
        rank, batch = message.rank, message.batch
        if isinstance(message, PredictionDigest) or message.rows is None:
            raise VerificationError(rank, batch, "did not say which rows it has predicted")
        self._results.accept(rank, batch, message.outputs)
        self._shares.add(rank, batch, message.rows, len(message.outputs[0]))
        self._results.place(message.outputs, message.rows)
        self._results.show(self._rows)
        if self._journal is not None:
            self._journal.write(self._shares.reached(len(self._results.paths)))

    def publish(self, reports: Mapping[int, RankReport]) -> tuple[Path, ...]:
        self._shares.finish(reports)
        self._results.commit(self._rows, scalars=False)
        return self._results.name()

    def salvage(self) -> tuple[Path, ...]:
        if not self._results.paths or not self._shares.rows:
            self._results.discard()
            return ()
        with suppress(OSError):
            self._results.commit(self._rows, scalars=False)
        return self._results.paths

    def close(self) -> None:
        self._results.close()

    @property
    def _rows(self) -> list[int]:
        return [self._shares.rows] * len(self._results.paths)
