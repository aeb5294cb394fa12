from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from workers.resharding.checkpoint import SlicedCheckpoint, open_checkpoint
from workers.resharding.checkpoint_file import read_index, write_checkpoint
from workers.resharding.errors import (
    DtypeMismatchError,
    LayoutError,
    MissingParametersError,
    ShapeMismatchError,
)
from workers.resharding.execute import execute
from workers.resharding.layout import Layout
from workers.resharding.plan import plan_rank
from workers.resharding.region import Region
from workers.resharding.strategy_file import write_strategy_file

Want = Callable[..., Any]

W = np.arange(32, dtype=np.float32).reshape(8, 4)
ROWS = Layout((4,), ((0,), ()))  # 2 rows of 16 bytes each


@pytest.fixture
def checkpoint(tmp_path: Path, save: Callable[..., tuple[str, Path]]) -> SlicedCheckpoint:
    """Four ranks with ``fc.weight`` in rows, and its momentum."""
    tensors = {"fc.weight": W, "moments.fc.weight": W}
    return open_checkpoint(*save(tmp_path, tensors, dict.fromkeys(tensors, ROWS)))


def test_only_the_needed_bytes_of_the_needed_files_are_planned(
    checkpoint: SlicedCheckpoint, want: Want
) -> None:
    # Half of the columns, rows 0..4 of 8: 4 rows of 8 bytes, from the files of ranks 0 and 1.
    quarter = Layout((2, 2), ((0,), (1,)))
    plan = plan_rank(checkpoint, {"fc.weight": want((8, 4), quarter)}, rank=1)
    assert {path.parent.name: count for path, count in plan.bytes_by_file.items()} == {
        "rank_0": 16,
        "rank_1": 16,
    }
    assert plan.bytes_to_read == 32
    (part,) = plan.slices  # nothing of the momentum
    offset = checkpoint.files[1].tensors["fc.weight"].chunks[0].offset
    assert part.shape == (4, 2)
    assert part.reads[1].offset == offset
    assert part.reads[1].source == Region((0, 2), (2, 4))
    assert part.reads[1].target == Region((2, 0), (4, 2))


def test_a_rank_that_wants_what_it_saved_reads_its_own_file(
    checkpoint: SlicedCheckpoint, want: Want
) -> None:
    plan = plan_rank(checkpoint, {"fc.weight": want((8, 4), ROWS)}, rank=2)
    assert [path.parent.name for path in plan.files] == ["rank_2"]


@pytest.mark.parametrize("most_kinds", [1, 256])
def test_parameters_that_are_alike_are_each_planned_as_if_there_were_no_other(
    most_kinds: int, tmp_path: Path, want: Want, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("workers.resharding.plan._MOST_KINDS", most_kinds)
    layouts = {**dict.fromkeys("abdef", ROWS), "c": Layout((2, 2), ((0,), ()))}
    for rank in range(4):
        half = W[rank // 2 * 4 :][:4]
        slices = {name: W[2 * rank : 2 * rank + 2] for name in "bfaed"} | {"c": half}
        if rank % 2:
            del slices["c"]  # remove_redundancy=True
        nbytes = 16 if rank == 2 else 1 << 20
        path = tmp_path / f"rank_{rank}" / "net.ckpt"
        write_checkpoint(path, {name: slices[name] for name in sorted(slices)}, {}, nbytes)
    write_strategy_file(tmp_path / "s.ckpt", layouts)
    checkpoint = open_checkpoint(str(tmp_path), tmp_path / "s.ckpt")
    columns = Layout((2,), ((), (0,)))
    wanted = {name: want((8, 4), columns) for name in "abc"}
    whole = Layout((2,), ((), ()))
    wanted |= {"d": want((8, 4), whole), "e": want((8, 4), columns), "f": want((8, 4), ROWS)}
    plan = plan_rank(checkpoint, wanted, rank=1)
    alone = [plan_rank(checkpoint, {name: wanted[name]}, rank=1).slices[0] for name in wanted]
    assert list(plan.slices) == alone
    for name, array in execute(plan).items():
        np.testing.assert_array_equal(array, W[wanted[name].layout.region(1, W.shape).as_slices()])


def test_a_plan_prints_what_is_read_from_which_file(
    checkpoint: SlicedCheckpoint, want: Want
) -> None:
    lines = str(plan_rank(checkpoint, {"fc.weight": want((8, 4))}, rank=0)).splitlines()
    assert lines[0] == "rank 0 reads 128 bytes"
    assert lines[1].split() == ["32", str(checkpoint.files[0].path)]
    assert len(lines) == 5


def test_chunks_are_planned_as_boxes_that_each_lie_in_one_chunk(
    tmp_path: Path, want: Want
) -> None:
    # 8x4 floats in chunks of 24 bytes = 6 elements: one and a half rows.
    write_checkpoint(tmp_path / "w.ckpt", {"w": W}, chunk_nbytes=24)
    checkpoint = open_checkpoint(str(tmp_path / "w.ckpt"))
    plan = plan_rank(checkpoint, {"w": want((8, 4), Layout((2,), ((0,), ())))}, rank=0)
    # Rows 0..4 are elements 0..16: all of the chunks 0..6 and 6..12, and 12..16 of the third.
    reads = plan.slices[0].reads
    assert [(read.shape, read.target.start, read.source.num_elements) for read in reads] == [
        ((1, 4), (0, 0), 4),
        ((1, 2), (1, 0), 2),
        ((1, 2), (1, 2), 2),
        ((1, 4), (2, 0), 4),
        ((1, 4), (3, 0), 4),
    ]


def test_parameters_that_the_checkpoint_lacks_are_all_named(
    checkpoint: SlicedCheckpoint, want: Want
) -> None:
    wanted = {name: want((8, 4)) for name in ("fc.weights", "fc.weight", "head")}
    with pytest.raises(MissingParametersError, match=r"2 wanted .*: fc.weights, head \(it has fc"):
        plan_rank(checkpoint, wanted, rank=0)


def test_a_wrong_strategy_shows_in_the_shape_that_the_slices_make(
    tmp_path: Path, checkpoint: SlicedCheckpoint, want: Want
) -> None:
    columns = dict.fromkeys(checkpoint.parameters, Layout((4,), ((), (0,))))
    write_strategy_file(tmp_path / "other.ckpt", columns)
    wrong = open_checkpoint(str(tmp_path), tmp_path / "other.ckpt")
    with pytest.raises(ShapeMismatchError) as caught:
        plan_rank(wrong, {"fc.weight": want((8, 4))}, rank=0)
    assert caught.value.parameter == "fc.weight"
    assert "wants shape [8, 4], but the slices" in str(caught.value)
    assert "have shape [2, 4] and make [2, 16] by the strategy" in str(caught.value)
    assert "is the strategy the one" in str(caught.value)


def test_without_a_strategy_another_shape_is_that_of_another_network(
    tmp_path: Path, want: Want
) -> None:
    write_checkpoint(tmp_path / "w.ckpt", {"w": W})
    with pytest.raises(ShapeMismatchError) as caught:
        plan_rank(open_checkpoint(str(tmp_path / "w.ckpt")), {"w": want((9, 4))}, rank=0)
    assert str(caught.value) == (
        f"w: the network wants shape [9, 4], {tmp_path}/w.ckpt holds [8, 4]; make the network as"
        " the one that was saved, or if these are slices, name their strategy"
    )


def test_whole_tensors_in_the_place_of_slices_are_read_as_such(
    tmp_path: Path, want: Want
) -> None:
    for rank in range(4):  # what integrated_save=True writes
        write_checkpoint(tmp_path / f"rank_{rank}" / "c.ckpt", {"w": W})
    write_strategy_file(tmp_path / "s.ckpt", {"w": ROWS})
    for strategy in (None, tmp_path / "s.ckpt"):
        checkpoint = open_checkpoint(str(tmp_path), strategy)
        plan = plan_rank(checkpoint, {"w": want((8, 4), ROWS)}, rank=2)
        np.testing.assert_array_equal(execute(plan)["w"], W[4:6])


def test_slices_that_cannot_be_told_from_whole_tensors_are_not_taken_for_them(
    tmp_path: Path, want: Want
) -> None:
    for rank in range(4):
        write_checkpoint(tmp_path / f"rank_{rank}" / "c.ckpt", {"w": np.zeros((8, 4), np.float32)})
    write_strategy_file(tmp_path / "s.ckpt", {"w": ROWS})
    checkpoint = open_checkpoint(str(tmp_path), tmp_path / "s.ckpt")
    assert checkpoint.parameters["w"].full_shape == (32, 4)
    with pytest.raises(ShapeMismatchError, match="holds the whole tensor: .* without a strategy"):
        plan_rank(checkpoint, {"w": want((8, 4))}, rank=0)


def test_another_element_type_is_refused_not_converted(
    checkpoint: SlicedCheckpoint, want: Want
) -> None:
    with pytest.raises(DtypeMismatchError, match="fc.weight: the network wants Float16, .*Float32"):
        plan_rank(checkpoint, {"fc.weight": want((8, 4), dtype="Float16")}, rank=0)


def test_an_element_type_that_nobody_can_load_is_refused_when_it_is_wanted(
    tmp_path: Path, want: Want
) -> None:
    write_checkpoint(tmp_path / "c.ckpt", {"w": np.zeros(4, np.int8)})
    content = (tmp_path / "c.ckpt").read_bytes()
    (tmp_path / "c.ckpt").write_bytes(content.replace(b"Int8", b"Odd8"))
    assert read_index(tmp_path / "c.ckpt").tensors["w"].dtype == "Odd8"
    with pytest.raises(DtypeMismatchError, match="elements of Odd8 .* are not supported"):
        plan_rank(
            open_checkpoint(str(tmp_path / "c.ckpt")), {"w": want((4,), dtype="Odd8")}, rank=0
        )


def test_a_wanted_layout_that_does_not_fit_names_the_parameter(
    checkpoint: SlicedCheckpoint, want: Want
) -> None:
    with pytest.raises(LayoutError, match="fc.weight: .* dim 1 of shape .* into 3 equal parts"):
        plan_rank(checkpoint, {"fc.weight": want((8, 4), Layout((3,), ((), (0,))))}, rank=0)
