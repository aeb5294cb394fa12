"""Write the arrays of a run, each to a .npy file, and name the files in the end. Parent only.

The files can be opened while they grow: they show what was verified and nothing else.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from launcher.agreement import VerificationError
from launcher.npy_file import GrowingNpy
from launcher.run_folder import RunFolder, partial_of
from workers.protocol import Rows


class ResultFiles:
    """One file for each array that the batches are made of."""

    def __init__(self, folder: RunFolder, labelled: bool, keep: Sequence[int] = ()) -> None:
        """Make no file yet.

        Args:
            labelled: the last array of each batch are its labels.
            keep: rows of each file that an earlier run has left, and this one goes on from.
        """
        self._keep = keep
        self._folder, self._labelled = folder, labelled
        self._first: tuple[np.ndarray, ...] = ()  # batch 0 without its rows: shapes and dtypes
        self._files: tuple[GrowingNpy, ...] = ()

    @property
    def paths(self) -> tuple[Path, ...]:
        return tuple(file.path for file in self._files)

    def accept(self, rank: int, batch: int, arrays: Sequence[np.ndarray]) -> None:
        """Make the files when this is the first batch; else see that it can follow the first.

        Raises:
            VerificationError: it cannot.
            OSError: the files cannot be made.
        """
        if not self._first:
            self._first = tuple(np.empty_like(a[:0] if a.ndim else a) for a in arrays)
            self._files = self._make(rank, batch)
        if len(arrays) != len(self._first):
            what = f"has {len(arrays)} outputs, not {len(self._first)} as before"
            raise VerificationError(rank, batch, what)
        for index, (array, first) in enumerate(zip(arrays, self._first)):
            if _kind(array) != _kind(first):
                what = f"has {_kind(array)} in output {index}, which cannot follow the"
                raise VerificationError(rank, batch, f"{what} {_kind(first)} of batch 0")

    def _make(self, rank: int, batch: int) -> tuple[GrowingNpy, ...]:
        keep = self._keep or [0] * len(self._first)
        try:
            return tuple(
                GrowingNpy(partial_of(path), a.dtype, a.shape[1:], rows)
                for path, a, rows in zip(self._named(), self._first, keep, strict=True)
            )
        except ValueError as error:
            raise VerificationError(rank, batch, f"cannot go on there: {error}") from error

    def append(self, arrays: Sequence[np.ndarray]) -> tuple[int, ...]:
        """Add a batch; return how many rows each file then has."""
        return tuple(
            file.append(np.atleast_1d(array)) for file, array in zip(self._files, arrays)
        )

    def place(self, arrays: Sequence[np.ndarray], rows: Rows) -> None:
        """Write a batch where it belongs, whatever is written before it."""
        for file, array in zip(self._files, arrays, strict=True):
            file.place(array, rows.start, rows.step)

    def show(self, rows: Sequence[int]) -> None:
        """Let readers of the files see so many rows."""
        for file, count in zip(self._files, rows, strict=True):
            file.show(count)

    def commit(self, rows: Sequence[int], scalars: bool) -> None:
        """Make so many rows all that is in the files; ``scalars``: 0-d outputs stay 0-d."""
        for file, count, first in zip(self._files, rows, self._first, strict=True):
            file.commit(count, shape=() if scalars and first.ndim == 0 else None)

    def name(self) -> tuple[Path, ...]:
        """Give the files the names of results: all of them, or none."""
        named: list[Path] = []
        try:
            for file, path in zip(self._files, self._named(), strict=True):
                file.path.replace(path)
                named.append(path)
            _sync_folder(self._folder.root)
        except OSError:
            for file, path in zip(self._files, named):
                path.replace(file.path)
            raise
        return tuple(named)

    def discard(self) -> None:
        for path in self.paths:
            path.unlink(missing_ok=True)

    def close(self) -> None:
        for file in self._files:
            file.close()

    def _named(self) -> list[Path]:
        return self._folder.results(len(self._first), self._labelled)


def _kind(array: np.ndarray) -> str:
    """Return what all batches of an output must have in common."""
    shape = ["rows", *map(str, array.shape[1:])] if array.ndim else []
    return f"{array.dtype.name}[{', '.join(shape)}]"


def _sync_folder(path: Path) -> None:
    """Make the new names survive a power cut."""
    descriptor = os.open(path, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
