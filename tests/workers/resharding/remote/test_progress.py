from __future__ import annotations

import pytest

from workers.resharding.remote.progress import Progress


def test_a_fetch_that_takes_long_is_told_now_and_then(capfd: pytest.CaptureFixture[str]) -> None:
    now_s = [0.0]
    progress = Progress("s3://b/net.ckpt", 40_000_000, lambda: now_s[0])
    for second in (1, 5, 6, 12):
        now_s[0] = second
        progress.add(5_000_000)
    assert capfd.readouterr().err.splitlines() == [
        "s3://b/net.ckpt: 10 of 40 MB, 2.0 MB/s",
        "s3://b/net.ckpt: 20 of 40 MB, 1.7 MB/s",
    ]
