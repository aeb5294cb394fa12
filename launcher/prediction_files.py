"""Turn what the ranks deliver into prediction files, and give them their names once verified.

Outputs are joined along their first dim over the batches. A 0-d output is stacked, and stays
0-d when there was one batch only. Each batch is written as it comes; what a file holds beyond
the verified batches is cut off before anybody sees it. Parent only.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping, Sequence
from contextlib import suppress
from pathlib import Path

import numpy as np

from launcher.agreement import Agreement, VerificationError
from launcher.npy_file import GrowingNpy
from launcher.run_folder import RunFolder, partial_of
from workers.protocol import OWNER_RANK, Prediction, PredictionDigest, RankReport


class PredictionFiles:
    """The predictions of one run."""

    def __init__(self, ranks: Iterable[int], folder: RunFolder, labelled: bool = False) -> None:
        """Make no file yet; ``labelled``: the last array of each batch are its labels."""
        self._folder, self._labelled = folder, labelled
        self._agreement = Agreement(ranks)
        self._first: tuple[np.ndarray, ...] = ()  # batch 0 without its rows: shapes and dtypes
        self._files: tuple[GrowingNpy, ...] = ()
        self._rows: list[tuple[int, ...]] = []  # of each output, after each batch

    @property
    def batches(self) -> int:
        """How many batches are verified."""
        return self._agreement.batches

    @property
    def batch_ends(self) -> tuple[int, ...]:
        """The row of the first file behind each verified batch."""
        return tuple(rows[0] for rows in self._rows[: self.batches])

    def take(self, message: Prediction | PredictionDigest) -> None:
        """Write the batch, if it is one, and compare it with what other ranks computed.

        Raises:
            VerificationError: it disagrees with other ranks, or with the batches before.
            OSError: it cannot be written.
        """
        rank, batch = message.rank, message.batch
        if isinstance(message, Prediction) != (rank == OWNER_RANK):
            raise VerificationError(rank, batch, f"sent a {type(message).__name__}")
        if isinstance(message, PredictionDigest):
            self._agreement.add(message)
        else:
            self._write(batch, message.outputs)
            self._agreement.add(PredictionDigest.of(rank, batch, message.outputs, message.inputs))

    def publish(self, reports: Mapping[int, RankReport]) -> tuple[Path, ...]:
        """Check that nothing is missing, and give the files their names.

        Raises:
            VerificationError: a rank or a batch is missing.
            OSError: the files cannot be written.
        """
        self._agreement.finish(reports)
        self._commit()
        named: list[Path] = []
        try:
            for file, path in zip(self._files, self._named(), strict=True):
                file.path.replace(path)
                named.append(path)
            _sync_folder(self._folder.root)
        except OSError:
            for file, path in zip(self._files, named):
                path.replace(file.path)  # all get their names, or none
            raise
        return tuple(named)

    def salvage(self) -> tuple[Path, ...]:
        """Keep the verified batches of a run that failed; return the partial files."""
        with suppress(OSError):  # a full disk is a reason to be here; the cause is told already
            if self.batches:
                self._commit()
                return tuple(file.path for file in self._files)
        for file in self._files:
            file.path.unlink(missing_ok=True)
        return ()

    def close(self) -> None:
        for file in self._files:
            file.close()

    def _write(self, batch: int, outputs: Sequence[np.ndarray]) -> None:
        if not self._first:
            self._first = tuple(np.empty_like(o[:0] if o.ndim else o) for o in outputs)
            self._files = tuple(
                GrowingNpy(partial_of(path), o.dtype, o.shape[1:])
                for path, o in zip(self._named(), outputs, strict=True)
            )
        self._require_same_kind(batch, outputs)
        for file, output in zip(self._files, outputs):
            file.append(np.atleast_1d(output))
        before = self._rows[-1] if self._rows else (0,) * len(outputs)
        self._rows.append(
            tuple(n + (o.shape[0] if o.ndim else 1) for n, o in zip(before, outputs))
        )

    def _require_same_kind(self, batch: int, outputs: Sequence[np.ndarray]) -> None:
        if len(outputs) != len(self._first):
            expected = f"{len(self._first)} as before"
            raise VerificationError(
                OWNER_RANK, batch, f"has {len(outputs)} outputs, not {expected}"
            )
        for index, (output, first) in enumerate(zip(outputs, self._first)):
            if _kind(output) != _kind(first):
                raise VerificationError(
                    OWNER_RANK,
                    batch,
                    f"has {_kind(output)} in output {index}, which cannot follow the"
                    f" {_kind(first)} of batch 0",
                )

    def _named(self) -> list[Path]:
        return self._folder.results(len(self._first), self._labelled)

    def _commit(self) -> None:
        rows_of_files = self._rows[self.batches - 1]
        for file, rows, first in zip(self._files, rows_of_files, self._first):
            keep_0d = first.ndim == 0 and self.batches == 1
            file.commit(rows, shape=() if keep_0d else None)


def _kind(output: np.ndarray) -> str:
    """Return what all batches of an output must have in common."""
    shape = ["rows", *map(str, output.shape[1:])] if output.ndim else []
    return f"{output.dtype.name}[{', '.join(shape)}]"


def _sync_folder(path: Path) -> None:
    """Make the new names survive a power cut."""
    descriptor = os.open(path, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
