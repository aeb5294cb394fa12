"""Any layout can be made from any other: every element names its place, so none can be mistaken."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, assume, given, settings
from hypothesis import strategies as st

from workers.resharding.checkpoint import SlicedCheckpoint, open_checkpoint
from workers.resharding.checkpoint_file import read_index
from workers.resharding.conversion import plan_conversion
from workers.resharding.convert import carry_out, write_headers
from workers.resharding.copies import plan_parameter
from workers.resharding.execute import execute
from workers.resharding.layout import Layout
from workers.resharding.plan import plan_rank
from workers.resharding.region import Region
from workers.resharding.strategy_file import write_strategy_file

Save = Callable[..., tuple[str, Path]]

SIZES = (1, 2, 2, 3, 4, 5, 6, 7, 16)  # of the axes of a device matrix
SHARED = [HealthCheck.function_scoped_fixture, HealthCheck.too_slow]


@st.composite
def layouts(draw: st.DrawFn, ndim: int, stages: bool = False) -> Layout:
    matrix = tuple(draw(st.lists(st.sampled_from(SIZES), min_size=1, max_size=3)))
    if math.prod(matrix) > 32:
        matrix = matrix[:1]
    dims: list[list[int]] = [[] for _ in range(ndim)]
    for axis in draw(st.permutations(range(len(matrix)))):
        dim = draw(st.integers(-1, ndim - 1))  # -1: the axis repeats the tensor
        if dim >= 0:
            dims[dim].append(axis)
    plain = Layout(matrix, tuple(map(tuple, dims)))
    replicas = plain.stage_size // math.prod(plain.split_counts)
    divisors = [size for size in range(2, replicas + 1) if replicas % size == 0]
    shard = draw(st.sampled_from([0, 0, -1, *divisors]))
    stage = draw(st.sampled_from([(0,), (1,), (0, 1)])) if stages else (0,)
    fields = draw(st.sampled_from([0, 0, 0, 1, 2, 3])) if shard == 0 else 0
    return replace(plain, optimizer_shard=shard, stages=stage, field_size=fields)


@st.composite
def resharding(draw: st.DrawFn, stages: bool = False) -> tuple[Layout, Layout, tuple[int, ...]]:
    """Draw two layouts, and a shape that both can cut; some then cut their rows unevenly."""
    ndim = draw(st.integers(1, 3))
    saved, wanted = draw(layouts(ndim, stages)), draw(layouts(ndim))
    shape = tuple(
        math.lcm(one, other) * draw(st.integers(1, 2))
        for one, other in zip(smallest(saved), smallest(wanted))
    )
    return draw(uneven(saved, shape)), draw(uneven(wanted, shape)), shape


@st.composite
def uneven(draw: st.DrawFn, layout: Layout, shape: tuple[int, ...]) -> Layout:
    if layout.field_size or layout.optimizer_shard or draw(st.integers(0, 3)):
        return layout
    cuts = st.lists(
        st.integers(0, shape[0]),
        min_size=layout.split_counts[0] - 1,
        max_size=layout.split_counts[0] - 1,
    )
    edges = [0, *sorted(draw(cuts)), shape[0]]
    return replace(layout, split_sizes=tuple(b - a for a, b in zip(edges, edges[1:])))


def smallest(layout: Layout) -> tuple[int, ...]:
    """Return the smallest shape that a layout can cut."""
    unit = (1,) * len(layout.axes)
    rows, *rest = replace(layout, field_size=0).full_shape(unit)
    return (rows * max(layout.field_size, 1), *rest)


def numbered(shape: tuple[int, ...]) -> np.ndarray:
    return np.arange(1, math.prod(shape) + 1, dtype=np.int32).reshape(shape)


def cut(full: np.ndarray, layout: Layout, rank: int) -> np.ndarray:
    boxes = layout.boxes(rank, full.shape)
    return np.concatenate([full[box.as_slices()] for box in boxes])


def equal_boxes(layout: Layout) -> bool:
    return not layout.split_sizes and layout.field_size < 2


@given(resharding())
@settings(max_examples=100, deadline=None)
def test_a_plan_fills_every_element_once_with_its_own_value(
    case: tuple[Layout, Layout, tuple[int, ...]],
) -> None:
    saved, wanted, shape = case
    assume(equal_boxes(saved) and equal_boxes(wanted))
    full = numbered(shape)
    regions = saved.regions(shape)
    for rank, region in wanted.regions(shape).items():
        filled, times = np.zeros(region.shape, np.int32), np.zeros(region.shape, int)
        steps = plan_parameter("w", region, regions, nearest=rank)
        for step in steps:
            held = full[regions[step.source_rank].as_slices()]
            filled[step.target.as_slices()] = held[step.source.as_slices()]
            times[step.target.as_slices()] += 1
        np.testing.assert_array_equal(filled, full[region.as_slices()])
        assert (times == 1).all()
        # The way by the layout's own grid gives the same, without looking at every rank.
        assert sorted(saved.sources(region, shape, rank)) == sorted(steps)


@given(resharding())
@settings(max_examples=100, deadline=None)
def test_the_ranks_of_a_layout_hold_every_element_equally_often(
    case: tuple[Layout, Layout, tuple[int, ...]],
) -> None:
    layout, _, shape = case
    times = np.zeros(shape, int)
    for rank in layout.ranks:
        for box in layout.boxes(rank, shape):
            times[box.as_slices()] += 1
        assert layout.full_shape(layout.stored_shape(rank, shape)) == shape
    assert times.min() == times.max() > 0


def through_files(
    full: np.ndarray, saved: Layout, folder: Path, save: Save
) -> tuple[str, Path]:
    anchors = {  # a pipeline has all its stages
        f"stage{stage}": Layout(saved.device_matrix, ((),), stages=(stage,))
        for stage in range(max(saved.stages) + 1)
    }
    tensors = {"w": full, **{name: np.zeros(1, np.int8) for name in anchors}}
    return save(folder, tensors, {"w": saved, **anchors})


@given(resharding(stages=True))
@settings(max_examples=40, deadline=None, suppress_health_check=SHARED)
def test_files_of_any_layout_load_into_any_layout_and_no_byte_too_many(
    tmp_path_factory: pytest.TempPathFactory,
    save: Save,
    want: Callable[..., Any],
    case: tuple[Layout, Layout, tuple[int, ...]],
) -> None:
    saved, wanted, shape = case
    full = numbered(shape)
    checkpoint = open_checkpoint(*through_files(full, saved, tmp_path_factory.mktemp("s"), save))
    for rank in wanted.ranks:
        expected = cut(full, wanted, rank)
        plan = plan_rank(checkpoint, {"w": want(shape, wanted, "Int32")}, rank)
        np.testing.assert_array_equal(execute(plan)["w"], expected, strict=True)
        assert plan.bytes_to_read == expected.nbytes


@given(resharding(stages=True))
@settings(max_examples=25, deadline=None, suppress_health_check=SHARED)
def test_there_and_back_again_leaves_every_byte_as_it_was(
    tmp_path_factory: pytest.TempPathFactory,
    save: Save,
    case: tuple[Layout, Layout, tuple[int, ...]],
) -> None:
    saved, wanted, shape = case
    folder = tmp_path_factory.mktemp("s")
    source = open_checkpoint(*through_files(numbered(shape), saved, folder / "a", save))
    there = converted(source, {"w": wanted}, folder / "b")
    write_strategy_file(folder / "b.ckpt", {"w": wanted})
    back = converted(
        open_checkpoint(str(there), folder / "b.ckpt"),
        {"w": replace(saved, stages=(0,))},
        folder / "c",
    )
    size = saved.stage_size
    for rank in range(size):
        first = folder / "a" / f"rank_{rank + min(saved.stages) * size}" / "net-1_10.ckpt"
        assert held(back / f"rank_{rank}" / "net-1_10.ckpt") == held(first)


def converted(checkpoint: SlicedCheckpoint, targets: dict[str, Layout], folder: Path) -> Path:
    conversion = plan_conversion(checkpoint, ["w"], targets, "net-1_10.ckpt")
    write_headers(conversion, folder)
    for number in range(len(conversion.tasks)):
        carry_out(conversion, number, folder)
    return folder


def held(path: Path) -> bytes:
    """Return the bytes of ``w`` in a file."""
    (chunk,) = read_index(path).tensors["w"].chunks
    return path.read_bytes()[chunk.offset : chunk.offset + chunk.nbytes]


@given(resharding(), st.data())
@settings(max_examples=60, deadline=None)
def test_the_numbers_of_the_axes_mean_nothing(
    case: tuple[Layout, Layout, tuple[int, ...]], data: st.DataObject
) -> None:
    layout, _, shape = case
    order = data.draw(st.permutations(range(len(layout.device_matrix))))
    moved = replace(
        layout,
        device_matrix=tuple(layout.device_matrix[axis] for axis in order),
        axes=tuple(tuple(order.index(axis) for axis in dim) for dim in layout.axes),
    )
    # Ranks are numbered differently, but as many of them hold each box.
    assert Counter(moved.boxes(rank, shape) for rank in moved.ranks) == Counter(
        layout.boxes(rank, shape) for rank in layout.ranks
    )


@given(resharding(), st.data())
@settings(max_examples=40, deadline=None)
def test_any_replica_will_do(
    case: tuple[Layout, Layout, tuple[int, ...]], data: st.DataObject
) -> None:
    saved, wanted, shape = case
    assume(equal_boxes(saved) and equal_boxes(wanted))
    groups: dict[Region, list[int]] = {}
    for rank, region in saved.regions(shape).items():
        groups.setdefault(region, []).append(rank)
    kept = {data.draw(st.sampled_from(ranks)) for ranks in groups.values()}
    nearest = data.draw(st.integers(0, 40))
    for region in wanted.regions(shape).values():
        steps = list(saved.sources(region, shape, nearest, kept))
        assert {rank for rank, _, _ in steps} <= kept
        assert sum(target.num_elements for _, _, target in steps) == region.num_elements
