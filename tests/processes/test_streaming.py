"""Input and output that are larger than the memory that the processes may take."""

from __future__ import annotations

import re
import subprocess
from collections.abc import Callable
from pathlib import Path

import numpy as np

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
