"""Say what one rank is told before it starts: who it is, what it runs, where it reports."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any, Union


@dataclass(frozen=True, kw_only=True)
class CollectorAddress:
    """Where the result collector listens, and the CURVE keys to talk to it (z85 text)."""

    endpoint: str  # "tcp://127.0.0.1:40123"
    server_key: str  # public key of the collector
    public_key: str  # the pair that every rank of this job uses
    secret_key: str


FULL_BATCH = "full_batch"
DatasetStrategy = Union[str, Sequence[Sequence[int]]]  # "full_batch", "data_parallel", or numbers


@dataclass(frozen=True, kw_only=True)
class DeviceOptions:
    """How MindSpore runs a network on devices; in its own words."""

    auto_parallel_cell: bool = False  # tell it by AutoParallel(cell), not by the global context
    search_mode: str = "recursive_programming"  # of parallel_mode "auto_parallel"
    pipeline_stages: int = 1
    dataset_strategy: DatasetStrategy = FULL_BATCH  # how inputs are divided
    strategy_ckpt_load_file: str | None = None  # strategies of operators
    jit_level: str | None = None  # "O0", "O1" or "O2"; MindSpore's own choice without it
    max_device_memory: str | None = None  # "30GB"
    load_before_init: bool = False  # read the slices before the ranks meet


@dataclass(frozen=True, kw_only=True)
class WorkerSpec:
    """Everything one rank depends on. Made by the launcher, never changed."""

    rank: int  # global: 0 .. rank_size - 1
    rank_size: int
    device_id: int  # index of the NPU on its own server
    server_id: str  # address of the server, as HCCL knows it
    device: str  # "simulated", "single", "ascend", "gpu", or a runtime as "module:Class"
    network: str  # "pkg.module:factory" or "path/file.py:factory"
    network_args: Mapping[str, Any] = field(default_factory=dict)  # by keyword, JSON values
    predict_data: str  # a callable; in task "eval" of (input, label) batches
    task: str = "predict"  # or "eval"
    parallel_mode: str = "semi_auto_parallel"  # "auto_parallel"; "data_parallel": data is shared
    device_options: DeviceOptions = field(default_factory=DeviceOptions)
    loss: str | None = None  # callables like the network's
    metrics: tuple[str, ...] = ()  # MindSpore's names, or callables
    batch_size: int | None = None  # given to the data's callable, if that takes it
    dataset_sink_mode: bool = False
    one_host: bool = True  # on which all ranks run
    first_batch: int = 0  # of the whole run; what lies before it was delivered by an earlier run
    checkpoint: str | None = None  # absolute pattern, may hold {rank}
    checkpoint_version: str | None = None  # of its files, when the launcher checked them
    strategy: str | None = None  # absolute path of the strategy file (or folder of stages)
    key_file: str | None = None  # of an encrypted checkpoint
    allow_missing: tuple[str, ...] = ()  # patterns: parameters that may keep initial values
    search_path: tuple[str, ...] = ()  # put in front of sys.path to find the user's modules
    threads: int = 1  # CPU threads that operators of this rank may use
    cores: tuple[int, ...] = ()  # that the process may run on; (): all
    log_file: str = ""
    environment: Mapping[str, str] = field(default_factory=dict)  # the whole of it
    transport: str = "memory"  # between simulated ranks: "memory" (of this host) or "mpi"
    job_id: str = ""  # random; names the sockets of the ranks of one host
    collector: CollectorAddress | None = None

    @property
    def shares_data(self) -> bool:
        """Whether each rank predicts a part of the data, with the whole network."""
        return self.parallel_mode == "data_parallel" and self.rank_size > 1

    @property
    def shares_weights(self) -> bool:
        """Whether rank 0 reads the weights for all ranks, which see them in its memory."""
        return self.shares_data and self.one_host and self.device == "cpu"

    def to_json(self) -> str:
        return json.dumps(asdict(self))

    @classmethod
    def from_json(cls, text: str) -> WorkerSpec:
        values = json.loads(text)
        if values.get("collector") is not None:
            values["collector"] = CollectorAddress(**values["collector"])
        values["device_options"] = DeviceOptions(**values["device_options"])
        for name in ("search_path", "allow_missing", "metrics", "cores"):
            values[name] = tuple(values[name])
        return cls(**values)
