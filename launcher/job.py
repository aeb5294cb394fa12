"""Decide what a run depends on: the keys of a job, checked together."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import (
    BaseModel,
    ConfigDict,
    Field,
    ValidationInfo,
    field_validator,
    model_validator,
)

from launcher.job_values import (
    HUB,
    MOST,
    AbsolutePath,
    Arguments,
    Checks,
    Count,
    Data,
    DatasetStrategy,
    EntryPoint,
    FileWithKey,
    Metrics,
    ParallelMode,
    Pattern,
    Patterns,
    Ranks,
    SearchPath,
    Seconds,
    Size,
    Source,
)


class Job(BaseModel):
    """Everything a run depends on, checked. Made once, never changed.

    Keys of a job file and flags have these names too. Relative paths are relative to the
    working directory, those of a job file to the folder of that file.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    task: Literal["predict", "eval"] = "predict"
    """Predict, or evaluate as Model.eval of MindSpore does."""
    parallel_mode: ParallelMode = "semi_auto_parallel"
    """How ranks share the work: data_parallel gives each whole weights and a part of the data;
    auto_parallel lets MindSpore search for strategies, on devices."""
    network: EntryPoint
    """Callable that returns the network: pkg.module:name or path/file.py:name; or a model of
    MindSpore Hub, hub:mindspore/1.7/googlenet_cifar10."""
    network_args: Arguments = {}
    """Keyword arguments of that callable, in JSON."""
    predict_data: Data | None = Field(default=None, validate_default=True)
    """Callable that returns the input: a Tensor, a tuple of them, an iterable of batches or a
    mindspore.dataset. Or a .npy, .npz or .safetensors file, file:key, or a folder of them."""
    dataset: Data | None = Field(default=None, validate_default=True)
    """To evaluate: the same, of (input, label) batches."""
    loss: EntryPoint | None = None
    """To evaluate: callable that returns the loss; the metric loss needs it."""
    metrics: Metrics = ("accuracy",)
    """To evaluate: names that MindSpore knows, or a callable that returns {name: Metric}, as for
    metrics that take arguments: topk, confusion_matrix."""
    batch_size: Count | None = None
    """Samples of a batch: data callables that take batch_size are given it, whole arrays and
    files are cut so; files into 32 if not given."""
    dataset_sink_mode: bool = False
    """To evaluate on one device that can: let it fetch the batches by itself."""
    ranks: Count | None = None
    """How many ranks predict; without it, as many as the rank table names."""
    rank_table: AbsolutePath | None = None
    """HCCL rank table (JSON) that says which rank runs on which device."""
    checkpoint: Pattern | None = None
    """Saved weights: a pattern with {rank}, a folder with rank_N inside, or one whole file; or
    a URL of these; or a model of the hub. A model's network comes with its weights, unless others
    are named, and the other way round."""
    strategy: Source | None = None
    """Strategy file of the training run that wrote the slices."""
    verify: Checks = ()
    """What to check of the files before a rank starts: crc, sha256, replicas, replicas=full."""
    allow_missing: Patterns = ()
    """Patterns of parameters that the checkpoint may lack; they keep their initial values."""
    key_file: AbsolutePath | None = None
    """File with the key of an encrypted checkpoint; no key is ever on a command line."""
    cache: AbsolutePath | None = None
    """Folder in which parts of remote files are kept; LAUNCHER_CACHE, or one in ~/.cache."""
    cache_size: Size | None = None
    """How much of remote files is kept at most, 64G for example."""
    hub_url: Source | None = None
    """Where the pages of the hub are, a URL or a folder; LAUNCHER_HUB_URL, or gitee.com."""
    hub_folder: AbsolutePath | None = None
    """Folder with the mindspore_hub_conf.py of the hub's model."""
    trust_code: bool = False
    """Let mindspore_hub download the code of the model, and run it."""
    device: Literal["auto", "ascend", "gpu", "cpu"] = "auto"
    """Where ranks run; cpu means simulated ranks, auto takes Ascend devices where there are any."""
    engine: Literal["auto", "local", "hosts", "mpi", "slurm"] = "auto"
    """What starts the ranks: this host, each host of the rank table for itself, mpirun or srun."""
    auto_parallel_cell: bool = False
    """On devices: tell MindSpore by AutoParallel(cell), not by set_auto_parallel_context."""
    search_mode: Literal["recursive_programming", "sharding_propagation"] = "recursive_programming"
    """How auto_parallel searches."""
    pipeline_stages: Count = 1
    """Stages of the network's pipeline; every rank gets the result of the last one."""
    dataset_strategy: DatasetStrategy = "full_batch"
    """What each simulated rank is fed of a batch: all of it (full_batch), a part of its rows
    (data_parallel), or in JSON the parts of each dim of each input, [[4, 1], [4]]."""
    strategy_ckpt_load_file: AbsolutePath | None = None
    """On devices: strategy file from which MindSpore takes the strategies of operators."""
    jit_level: Literal["O0", "O1", "O2"] | None = None
    """On devices: how MindSpore compiles the graph; its own choice without it."""
    max_device_memory: Annotated[str, Field(pattern=r"^\d+(\.\d+)?GB$")] | None = None
    """Memory of the device that MindSpore may take, 30GB for example."""
    load_before_init: bool = False
    """On devices: read the slices before the ranks take their devices and meet."""
    hostfile: AbsolutePath | None = None
    """Hosts for mpirun."""
    engine_args: str = ""
    """More arguments for mpirun, srun or sbatch: '--partition=npu --nodes=2'."""
    node: str | None = None
    """Which server of the rank table this host is, where it cannot tell by itself."""
    port: Annotated[int, Field(strict=True, ge=1024, le=65534)] | None = None
    """Where the launcher of rank 0 listens for other hosts; it needs the next port too."""
    cluster_key_file: AbsolutePath | None = None
    """File that holds the key by which hosts know each other; else LAUNCHER_CLUSTER_KEY does."""
    output: AbsolutePath | None = None
    """Folder for predictions, summary and logs; runs/<time> by default."""
    tee: Ranks | None = None
    """Ranks whose output is shown while they run, each line with its rank: 0,3 or 0-7 or all."""
    resume: bool = False
    """Go on from the last whole batch of the same run in output, if it was killed or failed."""
    timeout: Seconds = 3600.0
    """Seconds that the whole run may take."""
    phase_timeout: Seconds = 600.0
    """Seconds that a rank may spend in one phase."""
    max_restarts: Annotated[int, Field(strict=True, ge=0, le=MOST)] = 0
    """How often all ranks may be started again, from the last whole batch, after a rank died."""
    labels: FileWithKey | None = None
    """True classes of the samples, file.npy or file.npz:key; prints the accuracy."""
    check_single: bool = False
    """Predict the same in one process afterwards, and print the largest difference."""
    tolerance: Annotated[float, Field(strict=True, ge=0, allow_inf_nan=False)] = 0.01
    """Largest difference, relative to an output's largest value, that check_single accepts."""
    threads: Count | None = None
    """CPU threads of each rank; by default the cores of this host, shared out."""
    bind: Literal["auto", "none", "cores", "numa"] = "auto"
    """Cores of each rank: a share of its own, those of its device's NUMA node, or all of them."""
    search_path: SearchPath = ()
    """Folders in which modules are looked for first; the working directory always comes last."""

    @model_validator(mode="before")
    @classmethod
    def _both_of_the_hub(cls, values: Any) -> Any:
        """Take the weights of a model with its network, and the other way round."""
        if not isinstance(values, dict):
            return values
        named = (values.get(key) for key in ("network", "checkpoint"))
        models = (value for value in named if isinstance(value, str) and value.startswith(HUB))
        model = next(models, None)
        return values if model is None else {"network": model, "checkpoint": model} | values

    @field_validator("predict_data", "dataset")
    @classmethod
    def _required(cls, name: str | None, info: ValidationInfo) -> str | None:
        task = "eval" if info.field_name == "dataset" else "predict"
        if name is None and info.data.get("task") == task:
            raise ValueError("missing", "add it")
        return name

    @field_validator("resume")
    @classmethod
    def _where(cls, asked: bool, info: ValidationInfo) -> bool:
        if asked and info.data.get("output") is None:
            raise ValueError("nobody knows which run to resume", "name its output folder")
        return asked

    @field_validator("check_single")
    @classmethod
    def _predictions_only(cls, asked: bool, info: ValidationInfo) -> bool:
        if asked and info.data.get("task") == "eval":
            raise ValueError("it compares predictions", "leave it out of an evaluation")
        return asked

    @property
    def data(self) -> str:
        """The callable whose batches this task is about."""
        name = self.dataset if self.task == "eval" else self.predict_data
        assert name is not None  # it was required
        return name
