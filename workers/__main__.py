"""Be one rank: ``python -m workers --spec-fd N``. Started by an engine, not by people."""

from __future__ import annotations

import argparse

from workers.spec import WorkerSpec
from workers.worker import run_process


def main() -> None:
    """Read the spec from a file descriptor, because it holds a key, and live."""
    parser = argparse.ArgumentParser(prog="python -m workers", description=__doc__)
    parser.add_argument("--spec-fd", type=int, required=True, help="where to read the spec from")
    with open(parser.parse_args().spec_fd, encoding="utf-8") as stream:
        spec = WorkerSpec.from_json(stream.read())
    run_process(spec)


if __name__ == "__main__":
    main()
