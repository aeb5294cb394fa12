"""One of several processes of a job on several hosts, or in slots of mpirun or srun.

Not a test. ``python cluster.py '{"behaviour": ..., "ranks": 2, "folder": ..., "job": {...}}'`` runs
ranks of a class in fake_ranks.py, as ``python -m launcher`` runs real ones.
"""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path
from typing import Any

from launcher.cluster import hosts, slots
from launcher.engines.choice import leading, own_server
from launcher.engines.engine import Starter
from launcher.errors import LauncherError
from launcher.job import Job
from launcher.outcome import Limits
from launcher.prepare import read_rank_table
from launcher.run_folder import RunFolder
from launcher.runner import run_ranks
from launcher.slot import find_slot
from workers.spec import WorkerSpec

FAKES = Path(__file__).with_name("fake_ranks.py")
PATIENCE_S = 60.0


def lead(asked: dict[str, Any], starter: Starter) -> int:
    """Run the ranks from here; print how they ended."""
    sites = starter.sites(asked["ranks"], PATIENCE_S)
    specs = [
        WorkerSpec(
            rank=rank,
            rank_size=asked["ranks"],
            device_id=rank,
            server_id=site.host.name,
            device=f"{FAKES}:{asked['behaviour']}",
            network="net:make",
            predict_data="net:data",
            environment=dict(site.environment),
        )
        for site in sites
        for rank in site.ranks
    ]
    specs.sort(key=lambda spec: spec.rank)
    limits = Limits(total_s=PATIENCE_S, phase_s=PATIENCE_S)
    folder = RunFolder(Path(asked["folder"]))
    folder.begin()
    outcome = run_ranks(specs, folder, limits, print, starter)
    if outcome.cause is not None:
        print(f"cause {outcome.cause.kind} of rank {outcome.cause.rank}: {outcome.cause.message}")
    starter.conclude(outcome.exit_code)
    return outcome.exit_code


def main() -> int:
    asked = json.loads(sys.argv[1])
    if asked.get("job") is None and (slot := find_slot(os.environ)) is not None:
        if slot.rank > 0:
            return slots.lend(slot)
        with slots.leading(slot) as starter:
            return lead(asked, starter)
    job = Job.model_validate({"network": "n:f", "predict_data": "n:f"} | asked["job"])
    table = read_rank_table(job)
    server = own_server(job, table, os.environ)
    if table is not None and server not in (None, table.servers[0]):
        return hosts.follow(job, table, str(server))
    with leading(job, table, os.environ) as starter:
        return lead(asked, starter)


if __name__ == "__main__":
    try:
        sys.exit(main())
    except LauncherError as error:
        print(f"refused: {error}")
        sys.exit(error.exit_code)
