"""Prediction files: batches in, files out, and nothing that was not verified."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import closing
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from launcher.agreement import VerificationError
from launcher.journal import NOTHING, Journal, Reached, read_reached
from launcher.prediction_files import CommonFiles, SharedFiles
from launcher.run_folder import RunFolder
from workers.protocol import Prediction, PredictionDigest, RankReport, Rows


@pytest.fixture
def folder(tmp_path: Path) -> RunFolder:
    folder = RunFolder(tmp_path)
    folder.create()
    return folder


@pytest.fixture
def files(folder: RunFolder) -> Iterator[CommonFiles]:
    with closing(CommonFiles([0, 1], folder)) as files:
        yield files


def deliver(files: CommonFiles, batch: int, *outputs: np.ndarray) -> None:
    files.take(Prediction(0, batch, outputs))
    files.take(PredictionDigest.of(1, batch, outputs))


def reports(batches: int) -> dict[int, RankReport]:
    return dict.fromkeys((0, 1), RankReport({}, 0, 0, 0, batches))


def names(folder: RunFolder) -> list[str]:
    return sorted(path.name for path in folder.root.glob("*.npy"))


def test_batches_are_joined_along_the_first_dim(files: CommonFiles, folder: RunFolder) -> None:
    rows = np.arange(10, dtype=np.float32).reshape(5, 2)
    deliver(files, 0, rows[:4])
    deliver(files, 1, rows[4:])  # the last batch may be smaller
    assert files.publish(reports(2)) == (folder.predictions(),)
    np.testing.assert_array_equal(np.load(folder.predictions()), rows)
    assert names(folder) == ["predictions.npy"]


def test_every_output_of_the_network_has_a_file(files: CommonFiles, folder: RunFolder) -> None:
    deliver(files, 0, np.zeros((2, 3), np.float32), np.arange(2))
    deliver(files, 1, np.ones((2, 3), np.float32), np.arange(2))
    files.publish(reports(2))
    assert np.load(folder.predictions(0, 2)).shape == (4, 3)
    np.testing.assert_array_equal(np.load(folder.predictions(1, 2)), [0, 1, 0, 1])


def test_a_single_0d_output_stays_0d(files: CommonFiles, folder: RunFolder) -> None:
    deliver(files, 0, np.array(2.5))
    files.publish(reports(1))
    assert np.load(folder.predictions()).shape == ()


def test_several_0d_outputs_are_stacked(files: CommonFiles, folder: RunFolder) -> None:
    for batch in range(3):
        deliver(files, batch, np.array(batch))
    files.publish(reports(3))
    np.testing.assert_array_equal(np.load(folder.predictions()), [0, 1, 2])


@pytest.mark.parametrize(
    "second",
    [np.zeros((2, 4)), np.zeros((2, 3), np.float32), np.zeros(2), np.array(0.0)],
    ids=["shape", "dtype", "ndim", "0d"],
)
def test_a_batch_that_cannot_follow_the_others_is_an_error(
    files: CommonFiles, second: np.ndarray
) -> None:
    deliver(files, 0, np.zeros((2, 3)))
    with pytest.raises(VerificationError, match="batch 1: .* cannot follow the float64.rows, 3."):
        deliver(files, 1, second)


def test_another_number_of_outputs_is_an_error(files: CommonFiles) -> None:
    deliver(files, 0, np.zeros(2), np.zeros(2))
    with pytest.raises(VerificationError, match="batch 1: rank 0 has 1 outputs, not 2"):
        deliver(files, 1, np.zeros(2))


def test_a_rank_that_does_not_own_the_outputs_may_not_send_them(files: CommonFiles) -> None:
    with pytest.raises(VerificationError, match="rank 1 sent a Prediction"):
        files.take(Prediction(1, 0, (np.zeros(2),)))
    with pytest.raises(VerificationError, match="rank 0 sent a PredictionDigest"):
        files.take(PredictionDigest.of(0, 0, [np.zeros(2)]))


def test_nothing_gets_its_name_when_a_batch_is_missing(
    files: CommonFiles, folder: RunFolder
) -> None:
    deliver(files, 0, np.zeros((2, 3)))
    files.take(Prediction(0, 1, (np.zeros((2, 3)),)))
    with pytest.raises(VerificationError, match="batch 1: rank 1"):
        files.publish({0: reports(2)[0], 1: reports(1)[1]})
    assert not folder.predictions().exists()


def test_a_failed_run_keeps_the_batches_that_were_verified(
    files: CommonFiles, folder: RunFolder
) -> None:
    deliver(files, 0, np.zeros((2, 3)))
    files.take(Prediction(0, 1, (np.ones((2, 3)),)))  # rank 1 never confirms it
    assert files.salvage() == (folder.partial(),)
    np.testing.assert_array_equal(np.load(folder.partial()), np.zeros((2, 3)))
    assert names(folder) == ["predictions.partial.npy"]


def test_a_failed_run_that_verified_nothing_leaves_no_file(
    files: CommonFiles, folder: RunFolder
) -> None:
    files.take(Prediction(0, 0, (np.zeros((2, 3)),)))
    assert files.salvage() == ()
    assert names(folder) == []


def test_a_batch_that_cannot_be_written_does_not_count(
    files: CommonFiles, folder: RunFolder, monkeypatch: pytest.MonkeyPatch
) -> None:
    deliver(files, 0, np.zeros((2, 3)))
    files.take(PredictionDigest.of(1, 1, [np.ones((2, 3))]))
    write = os.pwrite

    def write_on_a_full_disk(file: int, data: memoryview, offset: int) -> int:
        if offset > 512:  # behind the header and the first batch
            raise OSError(28, "No space left on device")
        return write(file, data, offset)

    monkeypatch.setattr(os, "pwrite", write_on_a_full_disk)
    with pytest.raises(OSError, match="No space left"):
        files.take(Prediction(0, 1, (np.ones((2, 3)),)))
    assert files.batches == 1
    assert files.salvage() == (folder.partial(),)
    np.testing.assert_array_equal(np.load(folder.partial()), np.zeros((2, 3)))


def test_when_one_file_cannot_get_its_name_none_does(
    files: CommonFiles, folder: RunFolder
) -> None:
    deliver(files, 0, np.zeros(2), np.zeros(2))
    folder.predictions(1, 2).mkdir()  # a folder is in the way
    (folder.predictions(1, 2) / "file").touch()
    with pytest.raises(OSError):
        files.publish(reports(1))
    assert not folder.predictions(0, 2).exists()
    assert [path.name for path in files.salvage()] == [
        "predictions_0.partial.npy",
        "predictions_1.partial.npy",
    ]
    assert all(path.exists() for path in files.salvage())


def test_files_show_what_is_verified_while_the_run_goes_on(
    files: CommonFiles, folder: RunFolder
) -> None:
    deliver(files, 0, np.zeros((2, 3)))
    files.take(Prediction(0, 1, (np.ones((2, 3)),)))  # written, but rank 1 has not confirmed it
    np.testing.assert_array_equal(np.load(folder.partial()), np.zeros((2, 3)))
    files.take(PredictionDigest.of(1, 1, [np.ones((2, 3))]))
    assert np.load(folder.partial(), mmap_mode="r").shape == (4, 3)
    assert [list(ends) for ends in files.batch_ends] == [[2, 4]]


def test_labels_have_a_file_of_their_own(folder: RunFolder) -> None:
    with closing(CommonFiles([0], folder, labelled=True)) as files:
        files.take(Prediction(0, 0, (np.zeros((2, 3)), np.arange(2))))
        assert files.publish({0: reports(1)[0]}) == (folder.predictions(), folder.labels)
    np.testing.assert_array_equal(np.load(folder.labels), [0, 1])


def test_labels_may_have_other_rows_than_the_outputs(folder: RunFolder) -> None:
    with closing(CommonFiles([0], folder, labelled=True)) as files:
        files.take(Prediction(0, 0, (np.zeros((6, 3)), np.zeros((2, 3)))))  # a row for each token
        files.take(Prediction(0, 1, (np.zeros((3, 3)), np.zeros((1, 3)))))
        assert [list(ends) for ends in files.batch_ends] == [[6, 9], [2, 3]]


@pytest.mark.parametrize(("labelled", "expected"), [(False, (4, (16, 4))), (True, (2, (8, 2)))])
def test_what_is_evaluated_goes_on_from_where_batches_had_one_size(
    folder: RunFolder, labelled: bool, expected: tuple[int, tuple[int, ...]]
) -> None:
    with (
        closing(Journal(folder.progress, {}, NOTHING)) as journal,
        closing(CommonFiles([0], folder, labelled, journal)) as files,
    ):
        for batch, size in enumerate([4, 4, 5, 3, 4]):  # after 4 batches the mean is 4 again
            files.take(Prediction(0, batch, (np.zeros((size, 2)), np.zeros(1))))
    reached = read_reached(folder.progress, {})
    assert (reached.batches, reached.rows) == expected


def share(rank: int, batch: int, values: list[int], rows: Rows) -> Prediction:
    return Prediction(rank, batch, (np.array(values),), rows=rows)


def test_shares_are_put_in_the_order_of_the_input(folder: RunFolder) -> None:
    # Batches of 2, 2 and 1 samples: rank 0 has the first and the last, and is faster.
    done = RankReport({}, 0, 0, 0, batches=2, samples=5, seen="x")
    with closing(SharedFiles([0, 1], folder)) as files:
        files.take(share(0, 0, [0, 1], Rows(0)))
        files.take(share(0, 1, [4], Rows(4)))
        np.testing.assert_array_equal(np.load(folder.partial()), [0, 1])
        files.take(share(1, 0, [2, 3], Rows(2)))
        assert files.batch_ends == [[2, 4, 5]]
        files.publish({0: done, 1: replace(done, batches=1)})
    np.testing.assert_array_equal(np.load(folder.predictions()), [0, 1, 2, 3, 4])


def test_what_shards_were_filled_up_with_is_cut_off(folder: RunFolder) -> None:
    # Of 5 samples, shards of 3 ranks hold 0 3, 1 4 and 2 0: MindSpore filled up the last one.
    done = RankReport({}, 0, 0, 0, batches=1, samples=5)
    with closing(SharedFiles([0, 1, 2], folder, labelled=False)) as files:
        for rank, values in enumerate([[0, 3], [1, 4], [2, 0]]):
            files.take(share(rank, 0, values, Rows(rank, step=3)))
        files.publish(dict.fromkeys(range(3), done))
        assert files.batch_ends == [[2, 4, 5]]  # as one process would have had them
    np.testing.assert_array_equal(np.load(folder.predictions()), [0, 1, 2, 3, 4])


def test_a_failed_run_keeps_the_rows_before_the_first_gap(folder: RunFolder) -> None:
    with closing(SharedFiles([0, 1], folder)) as files:
        files.take(share(0, 0, [0, 1], Rows(0)))
        files.take(share(0, 1, [4], Rows(4)))
        assert files.salvage() == (folder.partial(),)
    np.testing.assert_array_equal(np.load(folder.partial()), [0, 1])


def test_a_rank_with_a_share_must_say_which_rows_it_has(folder: RunFolder) -> None:
    with closing(SharedFiles([0, 1], folder)) as files:
        with pytest.raises(VerificationError, match="did not say which rows"):
            files.take(Prediction(0, 0, (np.zeros(2),)))


def test_a_run_goes_on_behind_what_another_one_has_left(folder: RunFolder) -> None:
    with closing(CommonFiles([0], folder)) as files:
        for batch in range(3):
            files.take(Prediction(0, batch, (np.full((2, 3), batch),), inputs=f"data {batch}"))
        files.salvage()
    before = Reached(batches=2, rows=(4,), inputs="data 2")
    with closing(CommonFiles([0], folder, before=before)) as files:
        files.take(Prediction(0, 2, (np.full((2, 3), 2),), inputs="data 2"))
        files.take(Prediction(0, 3, (np.full((1, 3), 3),), inputs="data 3"))
        files.publish({0: reports(4)[0]})
    np.testing.assert_array_equal(np.load(folder.predictions())[:, 0], [0, 0, 1, 1, 2, 2, 3])


@pytest.mark.parametrize(
    ("inputs", "dtype", "said"),
    [("other", np.int64, "has other inputs"), ("data 1", np.float32, "partial.npy holds int64")],
)
def test_a_run_does_not_go_on_from_something_else(
    folder: RunFolder, inputs: str, dtype: type, said: str
) -> None:
    with closing(CommonFiles([0], folder)) as files:
        files.take(Prediction(0, 0, (np.zeros((2, 3), np.int64),), inputs="data 0"))
        files.salvage()
    before = Reached(batches=1, rows=(2,), inputs="data 1")
    with closing(CommonFiles([0], folder, before=before)) as files:
        with pytest.raises(VerificationError, match=said):
            files.take(Prediction(0, 1, (np.zeros((2, 3), dtype),), inputs=inputs))
