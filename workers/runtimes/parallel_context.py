"""Tell MindSpore how devices divide a network: by its global context, or by AutoParallel(cell)."""

from __future__ import annotations

from typing import Any

import mindspore
from mindspore.nn.utils import no_init_parameters
from mindspore.parallel.auto_parallel import AutoParallel

from workers.runtimes.user_code import make_network
from workers.spec import WorkerSpec


def build_network(spec: WorkerSpec) -> tuple[Any, Any]:
    """Return the user's network, and the cell that ``Model`` takes: the same, or one around it.

    A network that is an AutoParallel already says by itself all that is said here. Every rank
    predicts whole batches, and every rank gets the whole result.
    """
    if not spec.device_options.auto_parallel_cell:
        mindspore.set_auto_parallel_context(**_context_of(spec))
        network = make_network(spec)
        return (network.network if isinstance(network, AutoParallel) else network), network
    with no_init_parameters():  # each rank makes its slices only, when it compiles
        network = make_network(spec)
    if isinstance(network, AutoParallel):
        return network.network, network
    return network, _around(network, spec)


def _context_of(spec: WorkerSpec) -> dict[str, Any]:
    options = spec.device_options
    context: dict[str, Any] = {
        "parallel_mode": spec.parallel_mode,
        "full_batch": True,
        "device_num": spec.rank_size,
    }
    if spec.parallel_mode == "auto_parallel":
        context["search_mode"] = options.search_mode
    if options.pipeline_stages > 1:
        context |= {"pipeline_stages": options.pipeline_stages, "pipeline_result_broadcast": True}
    if options.strategy_ckpt_load_file is not None:
        context["strategy_ckpt_load_file"] = options.strategy_ckpt_load_file
    return context


def _around(network: Any, spec: WorkerSpec) -> Any:
    options = spec.device_options
    searched = spec.parallel_mode == "auto_parallel"
    parallel = AutoParallel(network, options.search_mode if searched else "semi_auto")
    parallel.dataset_strategy("full_batch")
    if options.pipeline_stages > 1:
        parallel.pipeline(options.pipeline_stages, output_broadcast=True)
    if options.strategy_ckpt_load_file is not None:
        parallel.load_param_strategy_file(options.strategy_ckpt_load_file)
    parallel.set_train(False)
    return parallel
