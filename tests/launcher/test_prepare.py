"""What is started before a job is checked to the end, and what only after."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from launcher.engines.local import LocalStarter
from launcher.errors import JobError
from launcher.job import Job
from launcher.prepare import prepare
from launcher.site import Site
from workers.spec import WorkerSpec

MakeJob = Callable[..., Job]


class Starter(LocalStarter):
    """Starts nothing, and notes what it is asked for."""

    def __init__(self, waits: bool) -> None:
        super().__init__({})
        self.waits = waits
        self.asked: list[str] = []

    def sites(self, ranks: int, limit_s: float) -> list[Site]:
        self.asked.append("sites")
        return super().sites(ranks, limit_s)

    def get_ready(self, spec: WorkerSpec) -> None:
        self.asked.append(f"ready for {spec.rank_size} ranks")


@pytest.fixture
def nowhere(make_job: MakeJob, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Job:
    """Return a job without a checkpoint where it says there is one."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "net.py").touch()
    return make_job(checkpoint="none.ckpt", strategy="none.ckpt", output="out")


def test_the_import_of_mindspore_begins_before_a_checkpoint_is_read(nowhere: Job) -> None:
    starter = Starter(waits=False)
    with pytest.raises(JobError, match="none.ckpt"):
        prepare(nowhere, None, starter)
    assert starter.asked == ["sites", "ready for 2 ranks"]


def test_nobody_waits_for_other_hosts_with_a_job_that_will_not_do(nowhere: Job) -> None:
    starter = Starter(waits=True)
    with pytest.raises(JobError, match="none.ckpt"):
        prepare(nowhere, None, starter)
    assert starter.asked == []


def test_where_ranks_run_is_decided_once(nowhere: Job) -> None:
    job = nowhere.model_copy(update={"checkpoint": None, "strategy": None})
    for waits, asked in ((False, ["sites", "ready for 2 ranks"]), (True, ["sites"])):
        starter = Starter(waits)
        assert len(prepare(job, None, starter).placement.specs) == 2
        assert starter.asked == asked
