"""Decide whether the ranks computed the same, batch by batch. No I/O: only their checksums."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping

from launcher.errors import LauncherError
from workers.protocol import OWNER_RANK, PredictionDigest, RankReport

SAME_DATA = (
    "; every rank must be given the same whole batches: do not shard the data by rank, and seed"
    " what is random"
)


class VerificationError(LauncherError):
    """The predictions cannot be trusted."""

    exit_code = 3

    def __init__(self, rank: int, batch: int, difference: str) -> None:
        super().__init__(rank, batch, difference)
        self.rank, self.batch, self.difference = rank, batch, difference

    def __str__(self) -> str:
        return f"batch {self.batch}: rank {self.rank} {self.difference}"


class Agreement:
    """What every rank said of every batch, until all of them have said the same of it."""

    def __init__(self, ranks: Iterable[int], before: int = 0) -> None:
        """Begin behind so many batches that an earlier run has verified."""
        self.batches = before  # that all ranks agree on
        self._delivered = dict.fromkeys(sorted(ranks), before)
        self._open: dict[int, dict[int, PredictionDigest]] = {}

    def add(self, digest: PredictionDigest) -> None:
        """Take what one rank computed for its next batch.

        Raises:
            VerificationError: it is not the next batch of that rank, or it was the last rank
                to deliver the batch, and they differ.
        """
        rank, batch = digest.rank, digest.batch
        due = self._delivered[rank]
        if batch != due:
            raise VerificationError(rank, batch, f"delivered it where batch {due} was due")
        self._delivered[rank] += 1
        said = self._open.setdefault(batch, {})
        said[rank] = digest
        if len(said) == len(self._delivered):
            _require_agreement(batch, self._open.pop(batch))
            self.batches += 1

    def finish(self, reports: Mapping[int, RankReport]) -> None:
        """Check that all ranks delivered all batches.

        Raises:
            VerificationError: a rank is missing, or has predicted less than another, or has
                predicted more than what arrived of it.
        """
        expected = max(1, *self._delivered.values())
        for rank, delivered in self._delivered.items():
            if rank not in reports:
                raise VerificationError(rank, delivered, "is missing: it never said done")
            if reports[rank].batches != delivered:
                claimed = reports[rank].batches
                raise VerificationError(
                    rank, delivered, f"predicted {claimed} batches, but {delivered} arrived"
                )
            if delivered != expected:
                raise VerificationError(
                    rank,
                    delivered,
                    f"did not predict it: it has {delivered} of {expected} batches;"
                    " does every rank get the same data?",
                )


def _require_agreement(batch: int, digests: Mapping[int, PredictionDigest]) -> None:
    said = {rank: _statements(digest) for rank, digest in digests.items()}
    votes = Counter(said.values())
    if len(votes) == 1:
        return
    # Nobody is right for sure, but the error is more use when it names the odd one out.
    usual = max(votes, key=lambda value: (votes[value], value == said[OWNER_RANK]))
    odd = min(rank for rank in said if said[rank] != usual)
    other = min(rank for rank in said if said[rank] == usual)
    mine, theirs = next(pair for pair in zip(said[odd], usual) if pair[0] != pair[1])
    hint = SAME_DATA if digests[odd].inputs != digests[other].inputs else ""
    raise VerificationError(odd, batch, f"says: {mine}; but rank {other}: {theirs}{hint}")


def _statements(digest: PredictionDigest) -> tuple[str, ...]:
    """Return the facts to compare, the plainest first."""
    outputs = [
        (f"output {index} has {what}", value)
        for what, values in (
            ("shape", digest.shapes),
            ("dtype", digest.dtypes),
            ("values with checksum", digest.digests),
        )
        for index, value in enumerate(values)
    ]
    facts = (f"{fact} {value}" for fact, value in outputs)
    return (f"inputs with checksum {digest.inputs}", f"{len(digest.shapes)} outputs", *facts)
