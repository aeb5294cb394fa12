"""Say what a run came to, for programs: the values that summary.json and the text are made of."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from launcher.job import Job
from launcher.outcome import Restarted, RootCause
from launcher.single_check import Difference
from workers.protocol import RankReport
from workers.resharding.remote.address import shown

_NOT_SHOWN = ("metrics", "seen", "batch_rows")  # of what a rank reports


@dataclass(frozen=True, kw_only=True)
class RankResult:
    """One rank of a run that has ended."""

    rank: int
    server_id: str
    device_id: int
    device: str  # the runtime: "simulated", "single", "ascend" or "gpu"
    log: Path
    report: RankReport | None  # None: the rank never said done

    def to_dict(self) -> dict[str, Any]:
        place = {
            "rank": self.rank,
            "server_id": self.server_id,
            "device_id": self.device_id,
            "device": self.device,
            "log": str(self.log),
        }
        if self.report is None:
            return place
        times = {phase: round(s, 4) for phase, s in self.report.phase_seconds.items()}
        used = {k: v for k, v in asdict(self.report).items() if k not in _NOT_SHOWN}
        return place | used | {"phase_seconds": times}


@dataclass(frozen=True, kw_only=True)
class Result:
    """How a run ended and what it left behind."""

    job: Job
    exit_code: int  # 0: every rank said done and the result is verified
    seconds: float  # from the first process to the last
    folder: Path
    summary: Path  # this result as JSON
    predictions: tuple[Path, ...]  # verified, one file for each output of the network
    batches: int  # verified batches
    partial: tuple[Path, ...]  # of a failed run: what was verified until then
    ranks: tuple[RankResult, ...]
    cause: RootCause | None  # of the failure
    followers: int  # other ranks that failed later or had to be stopped
    checked: Mapping[str, int] = field(default_factory=dict)  # see Prepared.checked
    accuracy: float | None = None  # share of predictions that hit their label, if there are labels
    metrics: Mapping[str, Any] | None = None  # of an evaluation: what Model.eval returns
    single: Difference | None = None  # from what one process predicts, if that was asked for
    restarts: tuple[Restarted, ...] = ()  # of all ranks, after failures that were worth it
    warnings: tuple[str, ...] = ()  # what could not be done with a result that is right

    @property
    def ok(self) -> bool:
        return self.exit_code == 0

    @property
    def initial(self) -> tuple[str, ...]:
        """The parameters that no file has: they kept the initial values of the network."""
        reports = [rank.report for rank in self.ranks if rank.report is not None]
        return tuple(sorted({name for report in reports for name in report.initial}))

    def arrays(self) -> tuple[np.ndarray, ...]:
        """Open the predictions, one array for each output of the network; nothing is read yet."""
        return tuple(np.load(path, mmap_mode="r") for path in self.predictions)

    def to_dict(self) -> dict[str, Any]:
        """Return what summary.json holds."""
        return {
            "status": "ok" if self.ok else "failed",
            "exit_code": self.exit_code,
            "seconds": round(self.seconds, 3),
            "accuracy": self.accuracy,
            "metrics": _json(self.metrics),
            "single": asdict(self.single) if self.single else None,
            "warnings": list(self.warnings),
            "checked": dict(self.checked),
            "initial_parameters": list(self.initial),
            "predictions": [_described(path) for path in self.predictions],
            "partial": [_described(path) for path in self.partial],
            "batches": self.batches,
            "cause": _cause(self.cause) if self.cause else None,
            "followers": self.followers,
            "restarts": [asdict(r) | {"cause": _cause(r.cause)} for r in self.restarts],
            "ranks": [rank.to_dict() for rank in self.ranks],
            "job": _without_secrets(self.job.model_dump(mode="json")),
        }


def _json(value: Any) -> Any:
    """Return what JSON can hold: it has no NaN and no infinity."""
    if isinstance(value, Mapping):
        return {name: _json(item) for name, item in value.items()}
    if isinstance(value, list):
        return [_json(item) for item in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value


def _without_secrets(values: Mapping[str, Any]) -> dict[str, Any]:
    """Return the values of a job; those that are URLs may hold passwords and tokens."""
    return {key: shown(v) if isinstance(v, str) else v for key, v in values.items()}


def _described(path: Path) -> Mapping[str, Any]:
    array = np.load(path, mmap_mode="r")
    return {"file": str(path), "shape": list(array.shape), "dtype": array.dtype.name}


def _cause(cause: RootCause) -> Mapping[str, Any]:
    return asdict(cause) | {"log": str(cause.log)}
