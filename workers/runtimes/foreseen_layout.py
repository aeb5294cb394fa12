"""Foresee the predict layout without a device, so that slices can be read before ranks meet."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Mapping

from workers.errors import InputError
from workers.resharding.layout_document import layout_of_report
from workers.runtimes.runtime import WantedParameter
from workers.spec import WorkerSpec

_INSTEAD = "leave load_before_init out of the job"


class ForesightError(InputError):
    """The predict layout cannot be foreseen, or MindSpore made another one on the device."""

    def __init__(self, rank: int, reason: str) -> None:
        super().__init__(rank, reason)
        self.rank, self.reason = rank, reason

    def __str__(self) -> str:
        return f"rank {self.rank} cannot load before init: {self.reason}; {_INSTEAD}"


def foresee(spec: WorkerSpec) -> dict[str, WantedParameter]:
    """Return where simulated ranks would want each parameter. A child process works it out.

    Raises:
        ForesightError: simulated ranks cannot divide this network.
    """
    request = {
        "launcher": os.getpid(),
        "ranks": spec.rank_size,
        "pipeline_stages": spec.device_options.pipeline_stages,
        "network": spec.network,
        "network_args": dict(spec.network_args),
        "predict_data": spec.predict_data,
        "task": spec.task,
        "batch_size": spec.batch_size,
        "search_path": list(spec.search_path),
    }
    command = [sys.executable, "-P", "-m", "workers.layout_report"]
    child = subprocess.run(command, input=json.dumps(request), capture_output=True, text=True)
    if child.returncode != 0:
        *_, reason = child.stderr.strip().splitlines() or ["the child said nothing"]
        raise ForesightError(spec.rank, reason)
    parameters = {
        name: WantedParameter(layout_of_report(item), tuple(item["full_shape"]), item["dtype"])
        for name, item in json.loads(child.stdout)["parameters"].items()
    }
    return {name: want for name, want in parameters.items() if want.layout.holds(spec.rank)}


def require_as_foreseen(
    rank: int, foreseen: Mapping[str, WantedParameter], made: Mapping[str, WantedParameter]
) -> None:
    """Check that a rank has read the slices that the compiled graph wants.

    Raises:
        ForesightError: it has read others.
    """
    for name, wanted in made.items():
        ours = foreseen.get(name)
        if ours is None:
            raise ForesightError(rank, f"the graph on the device has a parameter {name} more")
        here = wanted.layout.region(rank, wanted.full_shape)
        if ours.layout.region(rank, ours.full_shape) != here:
            raise ForesightError(rank, f"MindSpore wants {here} of {name} on the device")
