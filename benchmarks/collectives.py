#!/usr/bin/env python3
"""All-reduce and all-gather of 1 KB to 64 MB over 8 ranks: ours, mpi4py and MindSpore's mccl.

The sizes are those of the result that every rank gets. Each tool is started once a round and goes
through all sizes; quoted are medians of the rounds, of the mean time of a call on rank 0. A round
of mccl takes a minute: it has one.
"""

from __future__ import annotations

import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np

ROOT = Path(__file__).parents[1]
RANKS = 8
ROUNDS = {"ours": 3, "mpi4py": 3, "mccl": 1}
SIZES = (1 << 10, 1 << 13, 1 << 16, 1 << 20, 1 << 23, 1 << 26)  # bytes
SECONDS = 0.3  # about what a size takes; at least FEWEST calls
FEWEST = 4

Call = Callable[[], object]


def measure(name: str, size: int, call: Call, agree: Callable[[int], int]) -> dict[str, object]:
    """Return the mean time of a call; ``agree`` makes all ranks repeat as often as rank 0."""
    call()
    started_s = time.perf_counter()
    for _ in range(FEWEST):
        call()
    once_s = (time.perf_counter() - started_s) / FEWEST
    count = agree(max(FEWEST, int(SECONDS / once_s)))
    started_s = time.perf_counter()
    for _ in range(count):
        call()
    return {"call": name, "size": size, "s": (time.perf_counter() - started_s) / count}


def arrays() -> Iterator[tuple[int, np.ndarray, np.ndarray]]:
    """Yield each size, what is reduced and what is gathered."""
    for size in SIZES:
        yield size, np.ones(size // 4, np.float32), np.ones(size // 4 // RANKS, np.float32)


def tell(rank: int, results: list[dict[str, object]]) -> None:
    """Print the results of rank 0."""
    if rank == 0:
        print(json.dumps(results), flush=True)


def ours(rank: int, job: str) -> None:
    """Be a rank that is connected through shared memory."""
    from workers.resharding.layout import Layout
    from workers.spmd.collectives import Exchange, all_gather, all_reduce
    from workers.spmd.mesh import Mesh
    from workers.spmd.redistribution import plan_redistribution

    mesh, group, results = Mesh(rank, RANKS, job), tuple(range(RANKS)), []

    def agree(count: int) -> int:
        return int(all_gather(mesh, group, np.array([count]), "agree")[0][0])

    for size, whole, part in arrays():
        out, split, full = np.empty_like(whole), Layout((RANKS,), ((0,),)), Layout((RANKS,), ((),))
        transfer = plan_redistribution(split, full, whole.shape)[rank]
        gather = Exchange(mesh, transfer, part.shape, 4, "gather")
        calls = {
            "all-reduce": lambda whole=whole, out=out: all_reduce(
                mesh, group, whole, "sum", "reduce", out
            ),
            "all-gather": lambda part=part, out=out, gather=gather: gather(part, out),
        }
        results += [measure(name, size, call, agree) for name, call in calls.items()]
    mesh.close()
    tell(rank, results)


def mpi() -> None:
    """Be a rank of an MPI job."""
    from mpi4py import MPI

    world, results = MPI.COMM_WORLD, []
    for size, whole, part in arrays():
        out = np.empty_like(whole)
        calls = {
            "all-reduce": lambda whole=whole, out=out: world.Allreduce(whole, out),
            "all-gather": lambda part=part, out=out: world.Allgather(part, out),
        }
        results += [measure(name, size, call, world.bcast) for name, call in calls.items()]
    tell(world.rank, results)


def mccl() -> None:
    """Be a rank that msrun started: MindSpore's own collectives on a CPU."""
    import mindspore as ms
    from mindspore import ops

    ms.set_context(mode=ms.PYNATIVE_MODE, device_target="CPU")
    ms.communication.init()
    rank, reduce, gather = ms.communication.get_rank(), ops.AllReduce(), ops.AllGather()
    results: list[dict[str, object]] = []

    def agree(count: int) -> int:
        mine = np.array([count if rank == 0 else 0], np.float32)
        return int(reduce(ms.Tensor(mine)).asnumpy()[0])

    for size, whole, part in arrays():
        calls = {
            "all-reduce": lambda whole=ms.Tensor(whole): reduce(whole).asnumpy(),
            "all-gather": lambda part=ms.Tensor(part): gather(part).asnumpy(),
        }
        results += [measure(name, size, call, agree) for name, call in calls.items()]
    tell(rank, results)


def run(tool: str, folder: str) -> dict[tuple[str, int], float]:
    """Return the seconds of each call and size of one tool."""
    me, beside = [sys.executable, __file__], Path(sys.executable).parent
    command = {
        "ours": [*me, "ours"],
        "mpi4py": [str(beside / "mpirun"), "-n", str(RANKS), "--oversubscribe"]
        + ["--allow-run-as-root", *me, "mpi"],
        "mccl": [str(beside / "msrun"), f"--worker_num={RANKS}", f"--local_worker_num={RANKS}"]
        + ["--join=True", "--log_dir=logs", __file__, "mccl"],
    }[tool]
    env = {**os.environ, "PYTHONPATH": str(ROOT), "GLOG_v": "3"}
    env |= {"PATH": f"{beside}:{os.environ['PATH']}"}  # msrun starts "python"
    done = subprocess.run(command, cwd=folder, env=env, capture_output=True, text=True, check=False)
    said = done.stdout
    if tool == "mccl":  # its ranks write logs
        said = "\n".join(log.read_text() for log in Path(folder, "logs").glob("worker_*.log"))
    lines = [line for line in said.splitlines() if line.startswith("[{")]
    if not lines:  # mccl fails when it ends, after the results
        sys.exit(f"{tool} failed:\n{done.stderr[-2000:]}{said[-2000:]}")
    return {(entry["call"], entry["size"]): entry["s"] for entry in json.loads(lines[-1])}


def start_ours() -> None:
    """Fork the ranks; every one of them has imported everything already."""
    import workers.spmd.collectives  # noqa: F401

    job = str(os.getpid())
    pids = []
    for rank in range(RANKS):
        pid = os.fork()
        if pid == 0:
            ours(rank, job)
            os._exit(0)
        pids.append(pid)
    if any(os.waitpid(pid, 0)[1] for pid in pids):
        sys.exit("a rank failed")


def main() -> None:
    """Print medians and ratios."""
    tools = sys.argv[1:] or ["ours", "mpi4py", "mccl"]
    for name in ("mpirun", "msrun"):
        if not Path(sys.executable).with_name(name).exists():
            sys.exit(f"{name} is not beside this Python; run `make bench`")
    rounds: dict[str, list[dict[tuple[str, int], float]]] = {tool: [] for tool in tools}
    for number in range(max(ROUNDS.values())):
        for tool in [tool for tool in tools if number < ROUNDS[tool]]:
            with tempfile.TemporaryDirectory() as folder:
                rounds[tool].append(run(tool, folder))
    for call, size in rounds[tools[0]][0]:
        median = {tool: statistics.median(r[call, size] for r in rounds[tool]) for tool in tools}
        times = ", ".join(f"{tool} {1000 * s:.2f} ms" for tool, s in median.items())
        first, *others = tools
        ratios = ", ".join(f"{tool}/{first} {median[tool] / median[first]:.1f}" for tool in others)
        print(f"{call} of {size / 1024:.0f} KB: {times}; {ratios}")


if __name__ == "__main__":
    roles = {"ours": start_ours, "mpi": mpi, "mccl": mccl}
    roles[sys.argv[1]]() if sys.argv[1:2] and sys.argv[1] in roles else main()
