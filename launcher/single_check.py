"""Decide whether the ranks' result is what one process gets that holds the weights whole."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from launcher.errors import LauncherError
from launcher.outcome import Limits
from launcher.placement import clean_environment
from launcher.run_folder import RunFolder
from launcher.runner import run_ranks
from launcher.supervision import INTERRUPTED
from workers.spec import WorkerSpec

_PART = 1 << 22  # elements compared at a time
_WAYS = {
    "single": "one MindSpore process",
    "simulated": "one simulated rank",  # has what Ascend has and a CPU lacks
}


class SingleCheckError(LauncherError):
    """The ranks agree with each other, but not with one process, or it has no answer."""

    def __init__(self, reason: str, exit_code: int, log: Path) -> None:
        super().__init__(reason, exit_code, log)
        self.reason, self.exit_code, self.log = reason, exit_code, log

    def __str__(self) -> str:
        return self.reason


@dataclass(frozen=True, kw_only=True)
class Difference:
    """How far the ranks' result is from that of one process, where it is farthest."""

    against: str  # what ran the network whole
    output: int
    index: tuple[int, ...]
    absolute: float
    relative: float  # to the largest value of that output

    def __str__(self) -> str:
        where = f"output {self.output} at {list(self.index)}"
        return (
            f"{self.absolute:.3g} ({self.relative:.2g} of the largest value), {where},"
            f" beside {self.against}"
        )


def compare_with_single(
    spec: WorkerSpec,
    cores: int,
    files: Sequence[Path],
    folder: RunFolder,
    limits: Limits,
    tolerance: float,
) -> Difference:
    """Predict the same in one process and return the largest difference.

    Args:
        spec: of any rank; the process runs the same network on the same data and weights.
        files: what the ranks predicted, one .npy file for each output.
        folder: for what the process predicts.
        tolerance: the largest relative difference that sums in another order may make.

    Raises:
        SingleCheckError: the results differ, there is nothing to compare with, or the launcher
            was told to end.
    """
    reasons = []
    for device, way in _WAYS.items():
        alone = _alone(replace(spec, device=device), cores)
        folder.begin()
        outcome = run_ranks([alone], folder, limits, lambda _: None)
        if outcome.exit_code == 0:
            break
        assert outcome.cause is not None  # every failure has one
        if outcome.cause.kind == INTERRUPTED:  # so would be every other way
            raise SingleCheckError(outcome.cause.message, outcome.exit_code, folder.log(0))
        said = outcome.cause.message.partition("\n\n")[0]  # MindSpore goes on for pages
        reasons.append(f"{way}: {outcome.cause.kind}: {said}")
    else:
        told = "\n".join(("no single process could predict the same", *reasons))
        raise SingleCheckError(told, outcome.exit_code, folder.log(0))
    found = largest_difference(files, outcome.outputs, way, folder.log(0))
    if found.relative > tolerance:
        told = f"the ranks' result differs by {found}; accepted is {tolerance:.2g}"
        raise SingleCheckError(told, 3, folder.log(0))
    return found


def largest_difference(
    files: Sequence[Path], expected: Sequence[Path], against: str, log: Path
) -> Difference:
    """Compare two results, a part at a time; NaN equals NaN, and nothing else.

    Raises:
        SingleCheckError: they do not have the same shapes and dtypes.
    """
    outputs = [[np.load(path, mmap_mode="r") for path in paths] for paths in (files, expected)]
    kinds, expected_kinds = (
        [f"{x.dtype}{list(x.shape)}" for x in arrays] for arrays in outputs
    )
    if kinds != expected_kinds:
        told = f"the ranks predicted {', '.join(kinds)}; {against} {', '.join(expected_kinds)}"
        raise SingleCheckError(told, 3, log)
    pairs = zip(*outputs, strict=True)
    found = [_farthest(i, ours, theirs, against) for i, (ours, theirs) in enumerate(pairs)]
    return max(found, key=lambda difference: difference.relative)


def _farthest(output: int, ours: np.ndarray, theirs: np.ndarray, against: str) -> Difference:
    farthest, place, largest = 0.0, 0, 0.0
    flat, expected = ours.reshape(-1), theirs.reshape(-1)
    for begin in range(0, flat.size, _PART):
        mine, true = _wide(flat[begin : begin + _PART]), _wide(expected[begin : begin + _PART])
        with np.errstate(invalid="ignore"):  # infinity minus infinity
            apart = np.abs(mine - true)
        apart[np.isnan(apart)] = np.inf
        apart[(mine == true) | (np.isnan(mine) & np.isnan(true))] = 0
        worst = int(np.argmax(apart))
        if apart[worst] > farthest:
            farthest, place = float(apart[worst]), begin + worst
        finite = np.isfinite(true)
        largest = max(largest, float(np.max(np.abs(true), initial=0, where=finite)))
    return Difference(
        against=against,
        output=output,
        index=tuple(map(int, np.unravel_index(place, ours.shape))) if ours.size else (),
        absolute=farthest,
        relative=farthest / largest if largest else farthest,
    )


def _wide(part: np.ndarray) -> np.ndarray:
    """Return numbers whose differences are exact enough; booleans have none."""
    kind = np.complex128 if part.dtype.kind == "c" else np.longdouble
    return np.asarray(part, dtype=kind)


def _alone(spec: WorkerSpec, cores: int) -> WorkerSpec:
    """Return the spec of a process that is the whole job."""
    identity = {"RANK_ID": "0", "RANK_SIZE": "1", "DEVICE_ID": spec.environment["DEVICE_ID"]}
    environment = clean_environment(spec.environment, cores) | identity
    return replace(
        spec,
        rank=0,
        rank_size=1,
        device_options=replace(spec.device_options, pipeline_stages=1),
        threads=cores,
        environment=environment,
    )
