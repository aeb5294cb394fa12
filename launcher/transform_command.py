"""Carry out ``launcher transform``: re-shard the files of a checkpoint into other files."""

from __future__ import annotations

import argparse
import json
import os
import re
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from rich.progress import (
    BarColumn,
    DownloadColumn,
    Progress,
    TextColumn,
    TimeRemainingColumn,
    TransferSpeedColumn,
)

from launcher.cache_flags import add_cache_flags
from launcher.console import make_console
from launcher.errors import JobError, SystemFailedError
from launcher.host import look_around
from launcher.job_values import split_patterns
from launcher.preflight import doubts
from launcher.text import checks, listed, plural, seconds, size
from launcher.transform import transform
from workers.resharding.checkpoint import SlicedCheckpoint, open_checkpoint
from workers.resharding.conversion import Conversion, plan_conversion
from workers.resharding.dtypes import STORAGE
from workers.resharding.encryption import read_key
from workers.resharding.errors import DtypeMismatchError, ReshardError, TargetWriteError
from workers.resharding.optimizer_state import is_optimizer_state
from workers.resharding.remote.cache import Cache
from workers.resharding.strategy_file import read_strategy_file
from workers.resharding.verify import parse_checks, verify
from workers.resharding.wanted import matches

_RANK_IN_NAME = re.compile(r"[_-]?rank[_-]?\d+")
_NO_TENSORS = ("str", "random_op")  # types of entries that need not become anything
_LINES = 10  # that tell the progress where there is no terminal


def add_flags(parser: argparse.ArgumentParser) -> None:
    """Describe the command line."""
    parser.add_argument("source", metavar="SOURCE", help="folder, pattern, file or URL")
    parser.add_argument("target", type=Path, metavar="TARGET_DIR", help="new folder to make")
    parser.add_argument(
        "--strategy", metavar="FILE", help="strategy saved with the slices (none: whole tensors)"
    )
    parser.add_argument(
        "--target-strategy",
        metavar="FILE",
        help="strategy file, or layouts as `launcher layout --json` prints them (none: whole)",
    )
    parser.add_argument("--format", choices=("ckpt", "safetensors"), default="ckpt")
    parser.add_argument(
        "--with-optimizer-state", action="store_true", help="convert moments.*, ..., too"
    )
    parser.add_argument(
        "--verify",
        metavar="CHECKS",
        action="append",
        default=[],
        help="before: crc,replicas or replicas=full; see `run --help`",
    )
    parser.add_argument(
        "--allow-missing",
        metavar="PATTERN",
        action="append",
        default=[],
        help="parameters that the checkpoint may lack, or have in a type that is unknown: head.*",
    )
    parser.add_argument("--key-file", metavar="FILE", help="key of encrypted files")
    add_cache_flags(parser)
    parser.add_argument(
        "--processes", type=int, metavar="N", help="that read and write (default: all cores)"
    )


def execute(flags: argparse.Namespace, as_json: bool) -> int:
    """Convert, and say what was made."""
    started_s = time.monotonic()
    console = make_console(sys.stderr if as_json else sys.stdout)
    asked = _checks(flags.verify)
    flags.allow_missing = split_patterns(flags.allow_missing)
    if flags.processes is not None and flags.processes < 1:
        raise JobError.about("--processes", f"{flags.processes} is none", "give 1 or more")
    try:
        key = read_key(flags.key_file, os.environ)
        cache = Cache.of(os.environ, flags.cache, flags.cache_size)
        checkpoint = open_checkpoint(flags.source, flags.strategy, key, cache)
        checked = verify(checkpoint, asked)
        warnings = doubts(checkpoint)
        conversion, left_out = _plan(flags, checkpoint, cache)
        processes = flags.processes or look_around().cores
        with _progress(conversion, console) as watch:
            kept = transform(conversion, flags.target, processes, watch)
    except TargetWriteError as error:
        raise SystemFailedError(f"transform: {error}") from error
    except (ReshardError, ValueError) as error:
        raise JobError.about("transform", str(error)) from error
    report: dict[str, Any] = {
        "target": str(flags.target),
        "files": [str(output.path) for output in conversion.outputs],
        "parameters": len({name for output in conversion.outputs for name in output.slices}),
        "bytes": conversion.nbytes,
        "bytes_kept": kept,
        "seconds": time.monotonic() - started_s,
        "checked": checked,
        "warnings": warnings,
        "left_out": left_out,
    }
    for warning in warnings:
        print(f"warning: {warning}", file=sys.stderr)
    if as_json:
        print(json.dumps(report, indent=2))
    else:
        for line in _summary(report):
            console.print(line, soft_wrap=True)
    return 0


def _checks(given: Sequence[str]) -> Sequence[str]:
    try:
        return parse_checks(given)
    except ValueError as error:
        raise JobError.about("--verify", *error.args) from error


def _plan(
    flags: argparse.Namespace, checkpoint: SlicedCheckpoint, cache: Cache
) -> tuple[Conversion, dict[str, list[str]]]:
    """Return what to do, and the entries that are not converted, by reason."""
    parameters = checkpoint.parameters
    state = [
        name
        for name in parameters
        if not flags.with_optimizer_state and is_optimizer_state(name, parameters)
    ]
    odd = [name for name, saved in parameters.items() if saved.dtype not in STORAGE]
    for name in odd:
        saved = parameters[name]
        is_tensor = saved.in_strategy or saved.dtype not in _NO_TENSORS
        if is_tensor and name not in state and not matches(name, flags.allow_missing):
            path = str(checkpoint.files[saved.holders[0]].path)
            error = DtypeMismatchError(name, saved.dtype, saved.dtype, path)
            raise ValueError(f"{error}; to go on without, --allow-missing '{name}'")
    left_out = {"no tensor of a known type": odd, "optimizer state": state}
    dropped = {name for names in left_out.values() for name in names}
    names = [name for name in parameters if name not in dropped]
    targets = read_strategy_file(flags.target_strategy, cache) if flags.target_strategy else None
    unneeded = {
        name
        for name in targets or ()
        if matches(name, flags.allow_missing) or is_optimizer_state(name, targets or ())
    }
    stem = _RANK_IN_NAME.sub("", next(iter(checkpoint.files.values())).path.stem)
    prefix = "net" if stem[:1] in ("", "-") else ""  # of rank_0-3_1.ckpt, -3_1 is left
    file_name = f"{prefix}{stem}.{flags.format}"
    conversion = plan_conversion(checkpoint, names, targets, file_name, unneeded)
    left_out["in the strategy, but in no file"] = sorted(checkpoint.named - parameters.keys())
    return conversion, {reason: names for reason, names in left_out.items() if names}


@contextmanager
def _progress(conversion: Conversion, console: Any) -> Iterator[Callable[[int], None]]:
    """Give a function that is told of bytes; show a bar on a terminal, lines elsewhere."""
    total = sum(piece.nbytes for task in conversion.tasks for piece in task)
    if console.is_terminal:
        columns = BarColumn(), DownloadColumn(), TransferSpeedColumn(), TimeRemainingColumn()
        with Progress(TextColumn("transform"), *columns, console=console) as bar:
            task = bar.add_task("", total=total)
            yield lambda nbytes: bar.advance(task, nbytes)
        return
    done = shown = 0

    def watch(nbytes: int) -> None:
        nonlocal done, shown
        done += nbytes
        if done * _LINES // max(total, 1) > shown:
            shown = done * _LINES // max(total, 1)
            console.print(f"{100 * done // total:3} %  {size(done)} of {size(total)}")

    yield watch


def _summary(report: dict[str, Any]) -> Iterator[str]:
    if report["checked"]:
        yield f"checked      {checks(report['checked'])}"
    for reason, names in report["left_out"].items():
        yield f"left out     {reason}: {plural(len(names), 'tensor')} ({listed(names)})"
    if report["bytes_kept"]:
        yield f"kept         {size(report['bytes_kept'])} of an earlier run"
    files = plural(len(report["files"]), "file")
    parameters = plural(report["parameters"], "parameter")
    yield f"transformed  {parameters}, {files}, {size(report['bytes'])} -> {report['target']}"
    yield f"             in {seconds(report['seconds'])}"
