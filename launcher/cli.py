"""Turn a command line into a job, hand it to its command, and end with its exit code.

Nothing here, and nothing that is imported at the top, is slow: ``--help`` answers at once.
"""

from __future__ import annotations

import argparse
import importlib
import json
import os
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from launcher import __version__, job_flags
from launcher.errors import LauncherError, reason_of
from launcher.flags import FlagParser, did_you_mean
from launcher.slot import find_slot
from launcher.streams import StandardStreams
from launcher.text import visible

# command -> (module that carries it out, what it does)
COMMANDS = {
    "run": ("launcher.run_command", "predict; the command when none is named"),
    "plan": ("launcher.plan_command", "print where ranks would run and what they would read"),
    "layout": ("launcher.layout_command", "print how the ranks would divide each parameter"),
}
# commands that take no job, and know their own flags
FILE_COMMANDS = {
    "init": ("launcher.init_command", "write a commented job file to begin with"),
    "transform": ("launcher.transform_command", "re-shard the files of a checkpoint"),
    "inspect": ("launcher.inspect_command", "print what a checkpoint or strategy file holds"),
    "rank-table": ("launcher.rank_table_command", "check, make and merge HCCL rank tables"),
    "completion": ("launcher.completion", "print what makes bash complete this command line"),
}
DEFAULT_JOB = Path(__file__).parents[1] / "examples" / "digits" / "job.yaml"
UNSAID, REFUSED = 1, 2  # all is well but the output could not be written; nothing was started
INTERRUPTED = 130  # 128 + SIGINT, as a shell has it

_EPILOG = """\
examples:
  python -m launcher --ranks 8
      predict the handwritten digits of examples/digits on 8 simulated ranks
  python -m launcher job.yaml --ranks 8 --output out/
      the same for a job file; flags win over what the file says
  python -m launcher --ranks 8 --network pkg.module:make_network \\
      --predict-data pkg.module:make_input \\
      --checkpoint 'train/rank_{rank}/parallel-*.ckpt' --strategy train/strategy.ckpt
      a network of your own
  python -m launcher layout --network net.py:make --predict-data net.py:data --ranks 8 --json
      the predict layout, no checkpoint needed
  python -m launcher transform train/slices whole/ --strategy train/strategy.ckpt
      whole tensors in the place of slices; with --target-strategy, other slices

exit codes:
  0 verified result, 2 bad arguments, job, rank table or checkpoint, 3 the result failed
  verification, 124 deadline, 128+n ended by signal n, otherwise the first failed rank's code
"""


def main(argv: Sequence[str] | None = None) -> int:
    """Carry out a command line and return the exit code of the process."""
    with StandardStreams() as streams:
        try:
            exit_code = _execute(sys.argv[1:] if argv is None else argv)
        except KeyboardInterrupt:  # while a command is imported, too
            print("launcher: interrupted", file=sys.stderr)
            exit_code = INTERRUPTED
        sys.stdout.flush()
        if streams.output.failure is not None:
            print(f"launcher: standard output: {streams.output.failure.strerror}", file=sys.stderr)
            return exit_code or UNSAID
    return exit_code


def _execute(argv: Sequence[str]) -> int:
    command, rest = _split(argv)
    if command in FILE_COMMANDS:
        module = importlib.import_module(FILE_COMMANDS[command][0])
        arguments = make_file_parser(command, module.add_flags).parse_args(rest)
        return _end(lambda: int(module.execute(arguments, arguments.as_json)), arguments.as_json)
    parser = make_parser(command)
    flags = vars(parser.parse_args(rest))
    path = flags.pop("job")
    shown: dict[str, Any] = {
        name: flags.pop(name) for name in ("as_json", "program", "dry_run") if name in flags
    }
    as_json = "as_json" in shown
    if str(path) in (*COMMANDS, *FILE_COMMANDS):
        parser.error(f"a command comes first: python -m launcher {path} ...")
    hint = did_you_mean(str(path), (*COMMANDS, *FILE_COMMANDS))
    if hint and path is not None and not path.exists():
        parser.error(f"there is no command or job file {path}{hint}")
    return _end(lambda: _carry_out(command, path, flags, shown), as_json)


def _end(work: Callable[[], int], as_json: bool) -> int:
    """Carry out a command, and return its exit code or that of its failure."""
    try:
        return work()
    except LauncherError as error:
        return _refuse(str(error), error.exit_code, as_json)
    except OSError as error:  # later ones are LauncherErrors
        return _refuse(reason_of(error), REFUSED, as_json)


def _refuse(reason: str, exit_code: int, as_json: bool) -> int:
    print(f"launcher: {visible(reason)}", file=sys.stderr)
    if as_json:
        refusal = {"status": "refused", "exit_code": exit_code, "message": reason}
        print(json.dumps(refusal, indent=2))
    return exit_code


def make_file_parser(
    command: str, add_flags: Callable[[argparse.ArgumentParser], None]
) -> FlagParser:
    """Return the parser of a command that takes no job."""
    parser = FlagParser(
        prog=f"python -m launcher {command}",
        description=f"{FILE_COMMANDS[command][1]}.".capitalize(),
    )
    add_flags(parser)
    parser.add_argument(
        "--json", dest="as_json", action="store_true", help="print JSON for programs"
    )
    return parser


def make_parser(command: str) -> FlagParser:
    """Return the parser of a command; what the user leaves out is not in its result."""
    listed = (COMMANDS | FILE_COMMANDS).items()
    commands = "\n".join(f"  {name:<10} {what}" for name, (_, what) in listed)
    parser = FlagParser(
        prog="python -m launcher" + ("" if command == "run" else f" {command}"),
        usage=f"%(prog)s{' [COMMAND]' if command == 'run' else ''} [JOB.yaml] [flags]",
        description="Predict with a MindSpore network whose weights were saved as slices.\n\n"
        f"commands:\n{commands}",
        epilog=_EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        argument_default=argparse.SUPPRESS,
    )
    parser.add_argument(
        "--set", action="append", metavar="KEY=VALUE", help="any key of a job: docs/job.md"
    )
    parser.add_argument("--version", action="version", version=f"launcher {__version__}")
    parser.add_argument(
        "--json", dest="as_json", action="store_true", help="print JSON for programs"
    )
    parser.add_argument(
        "job",
        nargs="?",
        type=Path,
        default=None,
        metavar="JOB.yaml",
        help="job file; its keys are the flags, with _ for -",
    )
    job_flags.add_network_flags(parser)
    if command == "run":
        parser.add_argument(
            "--dry-run", action="store_true", help="print the plan or batch script, start nothing"
        )
    if command == "layout":
        parser.add_argument(
            "--program", action="store_true", help="print operators and collectives too"
        )
    else:
        job_flags.add_run_flags(parser)
    return parser


def _split(argv: Sequence[str]) -> tuple[str, Sequence[str]]:
    if argv and argv[0] in (*COMMANDS, *FILE_COMMANDS):
        return argv[0], argv[1:]
    return "run", argv


def _carry_out(
    command: str, path: Path | None, flags: dict[str, Any], shown: dict[str, Any]
) -> int:
    """Carry out a command, perhaps as one of the processes that mpirun or srun has started."""
    alone = command != "run" or flags.get("engine") in ("local", "hosts")
    slot = None if alone else find_slot(os.environ)
    if slot is None:
        return _execute_job(command, path, flags, shown)
    from launcher.cluster.slots import leading, lend

    if slot.rank > 0:
        return lend(slot)
    with leading(slot) as slots:
        return _execute_job(command, path, flags, {**shown, "slots": slots})


def _execute_job(
    command: str, path: Path | None, flags: dict[str, Any], shown: dict[str, Any]
) -> int:
    from launcher.job_file import load_job, parse_settings

    flags = {**parse_settings(flags.pop("set", ())), **flags}
    named = "network" in flags or str(flags.get("checkpoint")).startswith("hub:")
    if path is None and not named and DEFAULT_JOB.is_file():
        path = DEFAULT_JOB
        is_output = shown.keys() & {"as_json", "dry_run"}
        stream = sys.stderr if is_output else sys.stdout
        print(f"no job given: this is {os.path.relpath(path)}", file=stream)
    job = load_job(path, flags)
    module = importlib.import_module(COMMANDS[command][0])
    exit_code: int = module.execute(job, **shown)
    return exit_code
