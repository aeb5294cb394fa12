"""Name the flags of a job. What values they may have is for ``launcher.job`` to decide.

Nothing that is imported here is slow: ``--help`` answers at once.
"""

from __future__ import annotations

import argparse

from launcher.cache_flags import add_cache_flags


def add_network_flags(parser: argparse.ArgumentParser) -> None:
    """Take what the layouts of a job depend on."""
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
    group.add_argument(
        "--dataset-strategy",
        metavar="JSON",
        help="parts of a batch that simulated ranks are fed: full_batch, data_parallel, [[4, 1]]",
    )
    group.add_argument("--rank-table", metavar="FILE", help="HCCL rank table; see rank_tables/")
    group.add_argument(
        "--timeout", type=float, metavar="S", help="seconds for everything (default: 3600)"
    )


def add_run_flags(parser: argparse.ArgumentParser) -> None:
    """Take what a run depends on beside its layouts."""
    _add_eval_flags(parser)
    _add_weight_flags(parser)
    _add_place_flags(parser)
    _add_device_flags(parser)


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
