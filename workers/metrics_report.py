"""Evaluate outputs that several ranks have delivered, in one process and in the order of the input.

A child of its own, since the launcher never imports mindspore. Reads a request on standard
input, writes the metrics on standard output; what the user's code prints goes to standard error.
"""

from __future__ import annotations

import json
import os
import sys
import traceback
from collections.abc import Iterator, Sequence
from itertools import pairwise
from typing import Any

import numpy as np

from workers.entry_point import words_of
from workers.errors import WorkerError
from workers.lifeline import die_with
from workers.spec import WorkerSpec


def batches(
    outputs: str, labels: str, batch_ends: Sequence[Sequence[int]]
) -> Iterator[tuple[np.ndarray, ...]]:
    """Yield the outputs and labels of each batch, as the ranks delivered them.

    Args:
        batch_ends: the row behind each batch, of the outputs and of the labels: a network may
            return a row for each token of a sample.
    """
    parts = (_parts(*file) for file in zip((outputs, labels), batch_ends, strict=True))
    return zip(*parts, strict=True)


def _parts(path: str, ends: Sequence[int]) -> Iterator[np.ndarray]:
    rows = np.load(path, mmap_mode="r")
    for start, end in pairwise((0, *ends)):
        yield np.array(rows[start:end])


def main() -> int:
    """Read one request, write one report."""
    request = json.load(sys.stdin)
    die_with(request["launcher"])
    answer = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)  # the user's prints must not mix with the report
    try:
        values = _evaluate(request)
    except WorkerError as error:
        print(error, file=sys.stderr)
        return error.exit_code
    except Exception as error:  # of the user's metrics or loss: what it was comes before where
        said = f"a metric or the loss raised {words_of(error)}"
        print(f"{said}\n{traceback.format_exc()}", file=sys.stderr)
        return 1
    with answer:
        json.dump(values, answer)
    return 0


def _evaluate(request: dict[str, Any]) -> dict[str, Any]:
    from workers.runtimes.evaluation import Evaluation, Passed

    spec = WorkerSpec(
        rank=0,
        rank_size=1,
        device_id=0,
        server_id="localhost",
        device="cpu",
        network="",
        predict_data=request["outputs"],
        task="eval",
        loss=request["loss"],
        metrics=tuple(request["metrics"]),
        search_path=tuple(request["search_path"]),
    )
    data = batches(request["outputs"], request["labels"], request["batch_ends"])
    return Evaluation(spec).run(Passed(), data, lambda outputs: None)


if __name__ == "__main__":
    sys.exit(main())
