"""Not a test: ``python dying_ranks.py STEP`` forks four ranks, of which one dies at a step.

Prints what the others say, by rank. They never look at the board: only the kernel can tell them.
"""

from __future__ import annotations

import json
import os
import signal
import sys
from pathlib import Path

import numpy as np

from workers.errors import WorkerError
from workers.spmd import mesh, shared_group
from workers.spmd.collectives import all_reduce
from workers.spmd.shared_group import SharedGroup

RANKS = 4
ROUNDS = 1000  # enough for a rank to come to the gate last, and not last


def die(*_: object) -> None:
    os.kill(os.getpid(), signal.SIGKILL)


def before(owner: object, name: str) -> None:
    """Let this process die instead of calling a function."""
    setattr(owner, name, die)


def after(owner: object, name: str) -> None:
    """Let this process die after a function has done its work."""
    done = getattr(owner, name)
    setattr(owner, name, lambda *arguments: die(done(*arguments)))


def between(owner: object, name: str, calls: int) -> None:
    """Let this process die when a function has been called some times."""
    done, left = getattr(owner, name), [calls]

    def call(*arguments: object) -> object:
        left[0] -= 1
        return done(*arguments) if left[0] >= 0 else die()

    setattr(owner, name, call)


STEPS = {  # who dies, and how
    "instead of sharing memory": (0, lambda: before(SharedGroup, "create")),
    "before it gets its memory": (1, lambda: before(mesh.Mesh, "_share")),
    "before it writes": (1, lambda: before(SharedGroup, "put")),
    "after it wrote": (1, lambda: after(SharedGroup, "put")),
    "at the gate": (1, lambda: before(mesh.Mesh, "_wait")),
    "before it passes the gate": (1, lambda: before(SharedGroup, "leave")),
    "past the gate": (1, lambda: before(SharedGroup, "require_same_call")),
    "with the gate half open": (1, lambda: between(shared_group.os, "eventfd_write", 1)),
}


def survive(line: mesh.Mesh, step: str) -> str:
    """Meet the others again and again; return why that ended."""
    victim, prepare = STEPS[step]
    if "memory" not in step:
        reduce(line)
    if line.rank == victim:
        prepare()
    try:
        for _ in range(ROUNDS):
            reduce(line)
    except WorkerError as error:
        return f"{type(error).__name__}: {error}"
    return "nothing happened"


def leftovers(line: mesh.Mesh) -> str:
    """Return the files that are mapped for writing and shared, and what is open after the end."""
    reduce(line)
    maps = [entry.split() for entry in Path("/proc/self/maps").read_text().splitlines()]
    shared = {entry[5].split(":")[0] for entry in maps if entry[1] == "rw-s"}
    line.close()
    del line
    links = map(link_of, os.listdir("/proc/self/fd"))
    return json.dumps([sorted(shared), [x for x in links if "memfd" in x or "eventfd" in x]])


def link_of(descriptor: str) -> str:
    try:
        return os.readlink(f"/proc/self/fd/{descriptor}")
    except FileNotFoundError:  # that with which they were listed
        return ""


def reduce(line: mesh.Mesh) -> None:
    all_reduce(line, tuple(range(RANKS)), np.ones(3), "sum", "AllReduce after MatMul")


def main() -> None:
    step, job = sys.argv[1], str(os.getpid())
    mesh._LOOK_MS = None
    reading, writing = os.pipe()
    for rank in range(RANKS):
        if os.fork() == 0:
            lines = [mesh.Mesh(rank, RANKS, job)]
            said = leftovers(lines.pop()) if step == "none" else survive(lines[0], step)
            os.write(writing, json.dumps([rank, said]).encode() + b"\n")
            os._exit(0)
    os.close(writing)
    with open(reading, encoding="utf-8") as said_by_all:
        print(said_by_all.read(), end="")


if __name__ == "__main__":
    main()
