"""Not a test: what each process of an MPI job does in test_mpi.py; argv names the function."""

from __future__ import annotations

import hashlib
import json
import os
import signal
import sys

import numpy as np

from workers.errors import WorkerError
from workers.resharding.layout import Layout
from workers.spmd.collectives import Exchange, all_reduce
from workers.spmd.redistribution import plan_redistribution


def digest(transport):
    """Call every collective; return what the results hash to."""
    everybody = tuple(range(transport.rank_size))
    group = tuple(rank for rank in everybody if rank % 2 == transport.rank % 2)
    results = []
    for number, dtype in enumerate(["f2", "f4", "f8", "i1", "i8", "u1"]):
        for size in (0, 1, 7, 100_003):
            random = np.random.RandomState(1000 * number + 10 * transport.rank)
            mine = (random.randn(size) * 50).astype(dtype)
            for how in ("sum", "mean", "max", "min"):
                for members in (everybody, group):
                    results.append(all_reduce(transport, members, mine, how, f"{how} {dtype}"))
    source, target = Layout((2, 2), ((0,), (1,))), Layout((4,), ((), (0,)))
    out = np.empty(target.slice_shape((8, 12)))
    transfer = plan_redistribution(source, target, (8, 12))[transport.rank]
    held = np.arange(96.0).reshape(8, 12)[source.region(transport.rank, (8, 12)).as_slices()]
    Exchange(transport, transfer, held.shape, 8, "AllToAll")(held, out)
    results.append(out)
    return hashlib.sha256(b"".join(array.tobytes() for array in results)).hexdigest()


def mismatch(transport):
    call = "AllGather after ReLU" if transport.rank == 1 else "AllReduce after MatMul"
    all_reduce(transport, (0, 1, 2, 3), np.ones(3), "sum", call)


def shorter_data(transport):
    if transport.rank != 1:
        all_reduce(transport, (0, 1, 2, 3), np.ones(3), "sum", "AllReduce after MatMul")


def death(transport):
    all_reduce(transport, (0, 1, 2, 3), np.ones(3), "sum", "first")
    if transport.rank == 1:
        os.kill(os.getpid(), signal.SIGKILL)
    all_reduce(transport, (0, 1, 2, 3), np.ones(3), "sum", "second")


def main():
    from mpi4py import MPI

    from workers.spmd.mpi import MpiTransport

    transport = MpiTransport(MPI.COMM_WORLD.size - 1 - MPI.COMM_WORLD.rank, 4)
    try:
        said = globals()[sys.argv[1]](transport)
        transport.close()
    except WorkerError as error:
        said = str(error)
    print(json.dumps([transport.rank, said]), flush=True)
    os._exit(0 if transport is not None and MPI.Is_finalized() else 1)


if __name__ == "__main__":
    main()
