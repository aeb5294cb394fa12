"""Compile a network to MindIR without allocating its parameters and without a parallel backend.

MindSpore refuses to compile ``semi_auto_parallel`` for a CPU. The strategies are attributes of
the operators, though, and survive a stand-alone compilation: so the network is built under the
parallel context, as it is on a device, and compiled without it.
"""

from __future__ import annotations

import math
import mmap
import re
from collections.abc import Collection, Sequence
from contextlib import chdir
from dataclasses import replace
from tempfile import TemporaryDirectory
from typing import Any

import mindspore
import numpy as np
from mindspore.common.api import _cell_graph_executor
from mindspore.common.dtype import _dtype_to_nptype
from mindspore.parallel.auto_parallel import AutoParallel
from mindspore.train.mind_ir_pb2 import ModelProto

from workers.spmd.errors import CaptureError
from workers.spmd.graph import Graph, Node, changed, every_node, values_of
from workers.spmd.parse import parse_graph
from workers.spmd.simplify import simplify
from workers.spmd.source import with_sources
from workers.spmd.stages import with_stages
from workers.spmd.stand_ins import put_stand_ins, without_stand_ins
from workers.spmd.world import set_world
from workers.tensors import as_arguments

_RUNS_PYTHON = "PyExecute"  # the operator that MindSpore cannot export


def set_parallel_context(
    rank: int, rank_size: int, strategy_file: str | None = None, stages: int = 1
) -> None:
    """Set the context of the tutorial: semi_auto_parallel, whole batches, the strategy file.

    Args:
        stages: of the pipeline.
    """
    set_world(rank, rank_size)
    mindspore.set_context(mode=mindspore.GRAPH_MODE, device_target="CPU")
    mindspore.set_auto_parallel_context(
        parallel_mode="semi_auto_parallel",
        full_batch=True,
        device_num=rank_size,
        global_rank=rank,
        pipeline_stages=stages,
        **({"strategy_ckpt_load_file": strategy_file} if strategy_file else {}),
    )


def capture(network: mindspore.nn.Cell, inputs: Sequence[Any]) -> Graph:
    """Return the graph of a network that was built under ``set_parallel_context``.

    Its parameters hold nothing afterwards that can be used. Leaves the parallel context.

    Raises:
        CaptureError: MindSpore cannot compile the network.
    """
    if isinstance(network, AutoParallel):
        network = network.network  # what it wraps: the context says the same to this runtime
    network.set_train(False)
    for _, cell in network.cells_and_names():
        if getattr(cell, "_cell_init_args", "").startswith("lazy_inline"):
            cell.cell_init_args = ""  # a CPU refuses lazily inlined cells
    for parameter in network.get_parameters():
        if parameter.has_init:
            parameter.set_data(_untouched(parameter))
    put_stand_ins(network)
    mindspore.reset_auto_parallel_context()
    try:
        graph = parse_graph(_compiled(network, inputs), inputs)
    except CaptureError as error:
        if _RUNS_PYTHON not in str(error):
            raise
        # Python would make the dict that it returns
        graph = parse_graph(_compiled(_LaidFlat(network), inputs), inputs)
        graph = replace(graph, nodes=changed(graph.nodes, _inside))
    graph = with_sources(without_stand_ins(graph), network)
    _refuse_collectives(graph)
    _refuse_strangers(simplify(graph), {p.name for p in network.get_parameters()})
    return with_stages(graph, network)


def _refuse_collectives(graph: Graph) -> None:
    """Refuse what the user exchanges between ranks: a CPU's kernel would end the process."""
    for node in every_node(graph.nodes):
        if isinstance(node.attributes.get("group"), str):  # convolutions have a number
            raise CaptureError(
                f"{node} is a collective in the network itself: simulated ranks put in those that"
                " strategies ask for, and run no others"
            )


def _refuse_strangers(graph: Graph, own: Collection[str]) -> None:
    """Refuse parameters that no cell has: MindSpore neither saves nor loads them."""
    for node in every_node(graph.nodes):
        for value in values_of(node.inputs):
            if value.name in graph.parameters and value.name not in own:
                raise CaptureError(
                    f"{node} uses the parameter {value.name}, which no cell of the network has as"
                    " an attribute, so no checkpoint holds it; make lists a ParameterTuple or a"
                    " CellList, and leave out what draws random numbers"
                )


def _compiled(network: mindspore.nn.Cell, inputs: Sequence[Any]) -> ModelProto:
    executor, arguments = _cell_graph_executor, as_arguments(inputs)
    try:
        with TemporaryDirectory() as scratch, chdir(scratch):  # MindSpore dumps failures here
            compiled = executor.compile(
                network, *arguments, phase="export.predict", do_convert=False
            )
        ir = executor._get_func_graph_proto(network, compiled[0], "mind_ir", incremental=False)
    except Exception as error:  # whatever the user's construct raises while it is compiled
        raise CaptureError(f"MindSpore cannot compile the network: {_told(error)}") from error
    return ModelProto.FromString(ir)


class _LaidFlat(mindspore.nn.Cell):  # type: ignore[misc]
    """Returns what a network returns, without dicts and None. MindSpore compiles this class."""

    def __init__(self, network: mindspore.nn.Cell) -> None:
        super().__init__(auto_prefix=False)
        self.network = network

    def construct(self, *inputs: Any) -> Any:
        return _laid_flat(self.network(*inputs))


def _inside(node: Node) -> Node:
    """Return a node that ``_LaidFlat`` calls where it is in the user's network."""
    return replace(node, scope=re.sub(r"^network-\w+/", "", node.scope))


def _laid_flat(result: Any) -> Any:
    if isinstance(result, dict):
        result = tuple(result.values())
    if isinstance(result, (tuple, list)):
        flat = ()
        for item in result:
            flat = flat + _laid_flat(item)
        return flat
    if result is None:
        return ()
    return (result,)


def _told(error: Exception) -> str:
    """Return what MindSpore says to the user: its message, and where in construct it stopped.

    Its messages go on with sections about its own call stack, each under a title and rules.
    """
    message, *sections = re.split(r"\n\n-{20,}\n- (.*)\n-{20,}\n", str(error))
    titled = dict(zip(sections[::2], sections[1::2], strict=True))
    where = [text for title, text in titled.items() if "Construct Code" in title]
    told = "\n".join(part.strip() for part in (message, *where))
    return re.sub(r"\n \(See file .*\)", "", told)


def _untouched(parameter: Any) -> Any:
    """Return a tensor of a parameter's type on memory that nobody touches, so it costs none."""
    count = math.prod(parameter.shape)
    dtype = _dtype_to_nptype(parameter.dtype)
    memory = mmap.mmap(-1, max(count * np.dtype(dtype).itemsize, 1))
    array = np.frombuffer(memory, dtype=dtype, count=count).reshape(parameter.shape)
    return mindspore.Tensor.from_numpy(array)
