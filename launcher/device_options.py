"""Decide what MindSpore and HCCL are told where a network runs on devices. Pure."""

from __future__ import annotations

import math

from launcher.errors import JobError
from launcher.job import Job
from workers.spec import FULL_BATCH, DeviceOptions

_CONNECT_S = (120, 7200)  # what HCCL takes
_EXECUTE_S = 1836  # its own default


def device_options(job: Job) -> DeviceOptions:
    """Return the part of a job that only matters on devices."""
    file = job.strategy_ckpt_load_file
    return DeviceOptions(
        auto_parallel_cell=job.auto_parallel_cell,
        search_mode=job.search_mode,
        pipeline_stages=job.pipeline_stages,
        dataset_strategy=job.dataset_strategy,
        strategy_ckpt_load_file=str(file) if file else None,
        jit_level=job.jit_level,
        max_device_memory=job.max_device_memory,
        load_before_init=job.load_before_init,
    )


def require_possible(job: Job, runtime: str, rank_size: int) -> None:
    """Check that ranks of this kind, and so many of them, can do what the job says.

    Raises:
        JobError: they cannot.
    """
    require_stages(job, rank_size)
    if job.parallel_mode == "data_parallel" and job.pipeline_stages > 1:
        what = "with data_parallel every rank has the whole network"
        raise JobError.about("pipeline_stages", what, "leave it out, or use semi_auto_parallel")
    if runtime != "simulated" and job.dataset_strategy != FULL_BATCH:
        what = "only simulated ranks divide the inputs; others are fed whole batches"
        raise JobError.about("dataset_strategy", what, "leave it out: the result is the same")
    if runtime == "simulated" and job.parallel_mode == "auto_parallel":
        what = "auto_parallel: MindSpore searches for strategies on devices only"
        raise JobError.about("parallel_mode", what, "use semi_auto_parallel on simulated ranks")


def require_stages(job: Job, rank_size: int) -> None:
    """Check that the stages of the pipeline have equally many ranks.

    Raises:
        JobError: they have not.
    """
    if rank_size % job.pipeline_stages:
        what = f"{job.pipeline_stages} do not divide {rank_size} ranks"
        raise JobError.about("pipeline_stages", what, "choose stages of equally many ranks")


def hccl_time_limits(job: Job) -> dict[str, str]:
    """Return time limits of HCCL that are longer than the launcher's, which name a slow rank.

    In the first limit all ranks must come to init, in the second one to a collective: while a
    rank still loads and compiles, others may wait there.
    """
    least, most = _CONNECT_S
    connect_s = min(max(math.ceil(job.phase_timeout), least), most)
    execute_s = max(3 * math.ceil(job.phase_timeout), _EXECUTE_S)
    return {"HCCL_CONNECT_TIMEOUT": str(connect_s), "HCCL_EXEC_TIMEOUT": str(execute_s)}
