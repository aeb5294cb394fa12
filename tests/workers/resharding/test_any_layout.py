"""Any layout can be made from any other: every element names its place, so none can be mistaken."""

from __future__ import annotations

import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from workers.resharding.checkpoint import open_checkpoint
from workers.resharding.execute import execute
from workers.resharding.layout import Layout
from workers.resharding.plan import plan_parameter, plan_rank


@st.composite
def layouts(draw: st.DrawFn, ndim: int, stages: bool = False) -> Layout:
    matrix = tuple(draw(st.lists(st.integers(1, 4), min_size=1, max_size=3)))
    dims: list[list[int]] = [[] for _ in range(ndim)]
    for axis in draw(st.permutations(range(len(matrix)))):
        dim = draw(st.integers(-1, ndim - 1))  # -1: the axis repeats the tensor
        if dim >= 0:
            dims[dim].append(axis)
    plain = Layout(matrix, tuple(map(tuple, dims)))
    replicas = plain.stage_size // math.prod(plain.split_counts)
    divisors = [size for size in range(2, replicas + 1) if replicas % size == 0]
    shard = draw(st.sampled_from([0, -1, *divisors]))
    stage = draw(st.sampled_from([(0,), (1,), (0, 1)])) if stages else (0,)
    return Layout(matrix, plain.axes, optimizer_shard=shard if ndim else 0, stages=stage)


@st.composite
def resharding(draw: st.DrawFn, stages: bool = False) -> tuple[Layout, Layout, tuple[int, ...]]:
    """Draw two layouts, and a shape that both can cut."""
    ndim = draw(st.integers(1, 3))
    saved, wanted = draw(layouts(ndim, stages)), draw(layouts(ndim))
    unit = (1,) * ndim
    shape = tuple(
        math.lcm(one, other) * draw(st.integers(1, 2))
        for one, other in zip(saved.full_shape(unit), wanted.full_shape(unit))
    )
    return saved, wanted, shape


def numbered(shape: tuple[int, ...]) -> np.ndarray:
    return np.arange(1, math.prod(shape) + 1, dtype=np.int32).reshape(shape)


@given(resharding())
@settings(max_examples=150, deadline=None)
def test_a_plan_fills_every_element_once_with_its_own_value(
    case: tuple[Layout, Layout, tuple[int, ...]],
) -> None:
    saved, wanted, shape = case
    full = numbered(shape)
    regions = saved.regions(shape)
    for rank, region in wanted.regions(shape).items():
        filled, times = np.zeros(region.shape, np.int32), np.zeros(region.shape, int)
        for step in plan_parameter("w", region, regions, nearest=rank):
            held = full[regions[step.source_rank].as_slices()]
            filled[step.target.as_slices()] = held[step.source.as_slices()]
            times[step.target.as_slices()] += 1
        np.testing.assert_array_equal(filled, full[region.as_slices()])
        assert (times == 1).all()


@given(resharding())
@settings(max_examples=100, deadline=None)
def test_the_ranks_of_a_layout_hold_every_element_equally_often(
    case: tuple[Layout, Layout, tuple[int, ...]],
) -> None:
    layout, _, shape = case
    times = np.zeros(shape, int)
    for region in layout.regions(shape).values():
        times[region.as_slices()] += 1
        assert layout.full_shape(region.shape) == shape
    assert times.min() == times.max() > 0


@given(resharding(stages=True))
@settings(
    max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
def test_files_of_any_layout_load_into_any_layout_and_no_byte_too_many(
    tmp_path_factory: pytest.TempPathFactory,
    save: Callable[..., tuple[str, Path]],
    want: Callable[..., Any],
    case: tuple[Layout, Layout, tuple[int, ...]],
) -> None:
    saved, wanted, shape = case
    full = numbered(shape)
    anchors = {  # a pipeline has all its stages
        f"stage{stage}": Layout(saved.device_matrix, ((),), stages=(stage,))
        for stage in range(max(saved.stages) + 1)
    }
    folder = tmp_path_factory.mktemp("slices")
    tensors = {"w": full, **{name: np.zeros(1, np.int8) for name in anchors}}
    checkpoint = open_checkpoint(*save(folder, tensors, {"w": saved, **anchors}))
    for rank, region in wanted.regions(shape).items():
        plan = plan_rank(checkpoint, {"w": want(shape, wanted, "Int32")}, rank)
        np.testing.assert_array_equal(execute(plan)["w"], full[region.as_slices()], strict=True)
        assert plan.bytes_to_read == 4 * region.num_elements
