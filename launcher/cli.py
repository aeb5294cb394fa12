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

from launcher import __version__
from launcher.cache_flags import add_cache_flags
from launcher.errors import LauncherError, reason_of
from launcher.flags import FlagParser, did_you_mean
from launcher.slot import find_slot
from launcher.streams import StandardStreams

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
        exit_code = _execute(sys.argv[1:] if argv is None else argv)
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
    except KeyboardInterrupt:
        print("launcher: interrupted", file=sys.stderr)
        return INTERRUPTED


def _refuse(reason: str, exit_code: int, as_json: bool) -> int:
    print(f"launcher: {reason}", file=sys.stderr)
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
    _add_network_flags(parser)
    if command == "run":
        parser.add_argument(
            "--dry-run", action="store_true", help="print the plan or batch script, start nothing"
        )
    if command == "layout":
        parser.add_argument(
            "--program", action="store_true", help="print operators and collectives too"
        )
    else:
        _add_eval_flags(parser)
        _add_weight_flags(parser)
        _add_place_flags(parser)
        _add_device_flags(parser)
    return parser


def _add_network_flags(parser: argparse.ArgumentParser) -> None:
    group = parser.add_argument_group("network")
    group.add_argument(
        "--network",
        metavar="M:F",
        help="returns the network: pkg.module:name, file.py:name, or hub:MODEL of MindSpore Hub",
    )
    group.add_argument(
        *("--network-args", "--hub-args"),
        metavar="JSON",
        help="""keyword arguments of the network: '{"num_classes": 10}'""",
    )
    group.add_argument(
        "--hub-folder", metavar="DIR", help="with the mindspore_hub_conf.py of the hub's model"
    )
    group.add_argument(
        "--hub-url", metavar="URL", help="pages of the hub, if not on gitee.com (LAUNCHER_HUB_URL)"
    )
    group.add_argument(
        "--trust-code", action="store_true", help="let mindspore_hub download code and run it"
    )
    group.add_argument(
        "--predict-data",
        metavar="M:F",
        help="returns the input: Tensor, tuple of them, or batches; or a .npy, .npz or"
        " .safetensors file, or a folder of them",
    )
    group.add_argument(
        "--task", choices=("predict", "eval"), help="eval: metrics of a labelled dataset"
    )
    group.add_argument(
        "--parallel-mode",
        choices=("semi_auto_parallel", "auto_parallel", "data_parallel"),
        help="data_parallel: whole weights on every rank, and a part of the data; auto_parallel:"
        " MindSpore searches for strategies, on devices",
    )
    group.add_argument(
        "--dataset", metavar="M:F", help="eval: returns (input, label) batches, or a dataset"
    )
    group.add_argument(
        "--batch-size", type=int, metavar="N", help="for data functions that take batch_size"
    )
    group.add_argument("--ranks", type=int, metavar="N", help="how many ranks predict")
    group.add_argument(
        "--pipeline-stages", type=int, metavar="N", help="in which cells set pipeline_stage"
    )
    group.add_argument("--rank-table", metavar="FILE", help="HCCL rank table; see rank_tables/")
    group.add_argument(
        "--timeout", type=float, metavar="S", help="seconds for everything (default: 3600)"
    )


def _add_eval_flags(parser: argparse.ArgumentParser) -> None:
    group = parser.add_argument_group("evaluation")
    group.add_argument("--loss", metavar="M:F", help="returns the loss")
    group.add_argument(
        "--metrics", metavar="LIST", help="names, or M:F that returns {name: Metric}; accuracy"
    )
    group.add_argument(
        "--dataset-sink-mode", action="store_true", help="where the device can fetch batches"
    )


def _add_weight_flags(parser: argparse.ArgumentParser) -> None:
    group = parser.add_argument_group("weights and checks")
    group.add_argument(
        "--checkpoint",
        metavar="PATTERN",
        help="slices: a pattern with {rank}, or their folder; or a URL: https://, s3://, ...",
    )
    group.add_argument("--strategy", metavar="FILE", help="strategy file saved with the slices")
    group.add_argument(
        "--verify",
        action="append",
        metavar="CHECKS",
        help="of the files, before a rank starts: crc (checksums in them), sha256 (in NAME.sha256"
        " beside), replicas (bytes that ranks share, sampled) or replicas=full; with commas",
    )
    group.add_argument(
        "--allow-missing",
        action="append",
        metavar="PATTERN",
        help="parameters that may keep their initial values if no file has them: 'head.*'",
    )
    group.add_argument("--key-file", metavar="FILE", help="key of an encrypted checkpoint")
    add_cache_flags(group)
    group.add_argument(
        "--labels", metavar="FILE", help="true classes, file.npy or file.npz:key: print accuracy"
    )
    group.add_argument(
        "--check-single",
        action="store_true",
        help="predict the same in one process afterwards, and print the largest difference",
    )
    group.add_argument(
        "--tolerance",
        type=float,
        metavar="X",
        help="the difference that --check-single accepts, relative to the largest value"
        " (default: 0.01)",
    )


def _add_place_flags(parser: argparse.ArgumentParser) -> None:
    group = parser.add_argument_group("ranks and results")
    group.add_argument(
        "--device",
        choices=("auto", "ascend", "gpu", "cpu"),
        help="cpu: simulated ranks; auto (default): Ascend devices where there are any, else cpu",
    )
    group.add_argument(
        "--engine",
        choices=("auto", "local", "hosts", "mpi", "slurm"),
        help="what starts the ranks: this host (default), every host of the rank table for itself,"
        " mpirun or srun; see docs/clusters.md",
    )
    group.add_argument("--hostfile", metavar="FILE", help="hosts for mpirun")
    group.add_argument(
        "--engine-args", metavar="ARGS", help="more arguments for mpirun, srun or sbatch"
    )
    group.add_argument("--node", metavar="SERVER_ID", help="which server of the table this host is")
    group.add_argument("--port", type=int, metavar="N", help="of the launcher of rank 0")
    group.add_argument("--cluster-key-file", metavar="FILE", help="key that all hosts share")
    group.add_argument(
        "--threads", type=int, metavar="N", help="CPU threads of each rank (default: cores / ranks)"
    )
    group.add_argument(
        "--bind",
        choices=("auto", "none", "cores", "numa"),
        help="cores of each rank (default: with devices those of a NUMA node, else all)",
    )
    group.add_argument(
        "--output", metavar="DIR", help="where the result goes (default: runs/<time>)"
    )
    group.add_argument(
        "--tee", metavar="RANKS", help="show what these ranks print: 0,3 or 0-7 or all"
    )
    group.add_argument(
        "--resume", action="store_true", help="go on from the last whole batch in --output"
    )
    group.add_argument(
        "--max-restarts",
        type=int,
        metavar="N",
        help="how often to start all ranks again, from the last whole batch, after one died",
    )
    group.add_argument(
        "--phase-timeout", type=float, metavar="S", help="seconds for each phase (default: 600)"
    )


def _add_device_flags(parser: argparse.ArgumentParser) -> None:
    group = parser.add_argument_group("what MindSpore is told on devices")
    group.add_argument(
        "--auto-parallel-cell",
        action="store_true",
        help="by AutoParallel(cell), not by set_auto_parallel_context",
    )
    group.add_argument(
        "--search-mode",
        choices=("recursive_programming", "sharding_propagation"),
        help="how auto_parallel searches",
    )
    group.add_argument(
        "--strategy-ckpt-load-file", metavar="FILE", help="gives operators their strategies"
    )
    group.add_argument("--jit-level", choices=("O0", "O1", "O2"), help="how graphs are compiled")
    group.add_argument("--max-device-memory", metavar="SIZE", help="30GB for example")
    group.add_argument(
        "--load-before-init",
        action="store_true",
        help="read the slices before the ranks take their devices and meet",
    )


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
