"""A launcher process for tests that send signals to one: arguments in, messages out.

Not a test. ``python launch.py '{"device": ..., "ranks": 2, "folder": ..., "limits": {...}}'``
"""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path

from launcher.outcome import Limits, Restarted, Resumed
from launcher.run_folder import RunFolder
from launcher.runner import run_ranks
from workers.protocol import Message, PhaseEntered
from workers.spec import WorkerSpec
from workers.worker import peak_memory_bytes


def show(message: Message | Restarted | Resumed) -> None:
    if isinstance(message, Resumed):
        print(f"goes on from {message.batches} batches", flush=True)
    if isinstance(message, PhaseEntered):
        print(f"rank {message.rank} {message.phase}", flush=True)


def main() -> int:
    asked = json.loads(sys.argv[1])
    specs = [
        WorkerSpec(
            rank=rank,
            rank_size=asked["ranks"],
            device_id=rank,
            server_id="localhost",
            device=asked["device"],
            network="net:make",
            predict_data=asked.get("predict_data", "net:data"),
            batch_size=asked.get("batch_size"),
            parallel_mode=asked.get("parallel_mode", "semi_auto_parallel"),
            environment=os.environ | asked.get("environment", {}),
        )
        for rank in range(asked["ranks"])
    ]
    folder = RunFolder(Path(asked["folder"]))
    limits, resume = Limits(**asked["limits"]), asked.get("resume", False)
    folder.begin()
    outcome = run_ranks(specs, folder, limits, show, resume=resume)
    print(f"peak memory {peak_memory_bytes()}")
    print(f"of ranks {max((r.peak_memory_bytes for r in outcome.reports.values()), default=0)}")
    if outcome.cause is not None:
        print(f"cause {outcome.cause.kind}: {outcome.cause.message}")
    return outcome.exit_code


if __name__ == "__main__":
    sys.exit(main())
