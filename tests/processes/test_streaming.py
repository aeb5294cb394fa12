"""Files that go through ranks: larger than their memory, and going on after a kill."""

from __future__ import annotations

import json
import re
import subprocess
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from launcher.run_folder import RunFolder

MIB = 1 << 20
LIMIT = 200 * MIB  # of each process, its interpreter and libraries included
ROWS, ROW = 12 * 32, 1 << 18  # 12 batches of 32 MiB


def test_memory_stays_flat_while_a_file_goes_through(
    launch: Callable[..., subprocess.Popen[str]], folder: RunFolder, tmp_path: Path
) -> None:
    path = tmp_path / "input.npy"
    rows = np.lib.format.open_memmap(path, "w+", np.float32, (ROWS, ROW))  # sparse: no bytes yet
    rows[:, 0] = np.arange(ROWS)
    rows.flush()
    assert rows.nbytes > 1.9 * LIMIT
    output, _ = launch("Streams", predict_data=str(path)).communicate()
    peaks = [int(number) for number in re.findall(r"(?:peak memory|of ranks) (\d+)", output)]
    assert len(peaks) == 2 and 0 < max(peaks) < LIMIT, output
    found = np.load(folder.predictions(), mmap_mode="r")
    assert found.shape == (ROWS, ROW)
    np.testing.assert_array_equal(found[:, 0], np.arange(ROWS))
    folder.predictions().unlink()  # pytest keeps the folders of the latest runs


@pytest.mark.parametrize("mode", ["semi_auto_parallel", "data_parallel"])
def test_a_killed_run_goes_on_from_its_last_whole_batch(
    launch: Callable[..., subprocess.Popen[str]],
    until: Callable[[Callable[[], object]], None],
    folder: RunFolder,
    tmp_path: Path,
    mode: str,
) -> None:
    samples = np.arange(9.0)
    np.save(tmp_path / "input.npy", samples)
    job = {"predict_data": str(tmp_path / "input.npy"), "batch_size": 1, "parallel_mode": mode}

    def reached() -> int:
        line = folder.progress.read_text().split("\n")[0] if folder.progress.exists() else ""
        return int(json.loads(line)["batches"]) if line else 0

    killed = launch("StreamsUntilFive", **job)
    until(lambda: reached() == 4)  # 5 batches are whole; the last one is predicted again
    killed.kill()
    killed.communicate()
    np.testing.assert_array_equal(np.load(folder.partial()), samples[:5])
    with open(folder.partial(), "r+b") as file:
        file.seek(512 + 5 * 8)
        file.write(b"half of a batch")

    (tmp_path / "go-on").touch()
    output, _ = launch("StreamsUntilFive", **job, resume=True).communicate()
    assert "goes on from 4 batches\n" in output
    np.testing.assert_array_equal(np.load(folder.predictions()), samples, output)
    whole = RunFolder(tmp_path / "whole")
    launch("StreamsUntilFive", **job, folder=str(whole.root)).communicate()
    assert whole.predictions().read_bytes() == folder.predictions().read_bytes()
    assert not folder.progress.exists()
