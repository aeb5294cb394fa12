"""A whole run in the parent, with a stand-in for the ranks."""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

import launcher
from launcher import cli, launch, metrics_report
from launcher.engines.engine import Starter
from launcher.engines.local import LocalStarter
from launcher.errors import FolderInUseError, RankTableError, ReportError
from launcher.job import Job
from launcher.outcome import Limits, Outcome, RootCause
from launcher.rank_table.waiting import RankTableTimeout
from launcher.run_command import execute
from launcher.run_folder import RunFolder
from launcher.streams import StandardStreams
from workers.protocol import Message, PhaseEntered, RankReport
from workers.spec import WorkerSpec

MakeJob = Callable[..., Job]
TABLE = Path(__file__).parents[2] / "rank_tables" / "hccl_1x2.json"
REPORT = RankReport({"predict": 1.0}, bytes_read=8, bytes_held=8, peak_memory_bytes=8, batches=1)


class Ranks:
    """Stands in for ``run_ranks``: predicts four samples, or fails."""

    def __init__(self) -> None:
        self.summary_at_start = ""
        self.specs: Sequence[WorkerSpec] = ()
        self.limits: Limits | None = None
        self.cause: RootCause | None = None

    def __call__(
        self,
        specs: Sequence[WorkerSpec],
        folder: RunFolder,
        limits: Limits,
        watch: Callable[[Message], None],
        starter: Starter,
        resume: bool,
    ) -> Outcome:
        self.specs, self.limits = specs, limits
        self.summary_at_start = folder.summary.read_text() if folder.summary.exists() else ""
        watch(PhaseEntered(0, "started"))
        if self.cause is not None:
            return Outcome(
                exit_code=self.cause.exit_code,
                cause=self.cause,
                followers=1,
                reports={0: REPORT},
                outputs=(),
                batches=0,
            )
        outputs = folder.results(1 + (specs[0].task == "eval"), specs[0].task == "eval")
        for path in outputs:
            np.save(path, np.eye(4, 3, dtype=np.float32))  # classes 0, 1, 2, 0
        return Outcome(
            exit_code=0,
            cause=None,
            followers=0,
            reports={spec.rank: REPORT for spec in specs},
            outputs=tuple(outputs),
            batches=1,
        )


@pytest.fixture
def ranks(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Ranks:
    """Replace the ranks, in a working directory that holds a network."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "net.py").touch()
    stand_in = Ranks()
    monkeypatch.setattr(launch, "run_ranks", stand_in)
    monkeypatch.setattr(LocalStarter, "get_ready", lambda starter, spec: None)
    return stand_in


def test_a_python_program_gets_the_arrays(ranks: Ranks, tmp_path: Path) -> None:
    heard: list[Message] = []
    job = launcher.load_job(network="net:make", predict_data="net:data", ranks=2, output="out")

    result = launcher.run(job, heard.append)

    assert result.ok
    assert result.arrays()[0].shape == (4, 3)
    assert result.folder == tmp_path / "out"
    assert heard == [PhaseEntered(0, "started")]


def test_limits_are_those_of_the_job(ranks: Ranks, make_job: MakeJob) -> None:
    launcher.run(make_job(timeout=9.0, phase_timeout=3.0))
    assert ranks.limits == Limits(total_s=9.0, phase_s=3.0)


def test_every_run_has_a_folder_of_its_own_by_default(
    ranks: Ranks, make_job: MakeJob, tmp_path: Path
) -> None:
    assert launcher.run(make_job()).folder.parent == tmp_path / "runs"


def test_the_summary_is_written_as_json(ranks: Ranks, make_job: MakeJob, tmp_path: Path) -> None:
    result = launcher.run(make_job(output="out"))
    written = json.loads((tmp_path / "out" / "summary.json").read_text())
    assert written == json.loads(json.dumps(result.to_dict()))
    assert (written["status"], written["exit_code"], written["batches"]) == ("ok", 0, 1)
    assert written["predictions"] == [
        {"file": str(tmp_path / "out" / "predictions.npy"), "shape": [4, 3], "dtype": "float32"}
    ]
    assert [rank["bytes_read"] for rank in written["ranks"]] == [8, 8]
    assert written["job"]["network"] == "net:make"


@pytest.mark.parametrize("error", [ReportError(1, "the metric raised"), OSError("no process")])
def test_outputs_that_could_not_be_evaluated_are_no_result(
    ranks: Ranks, error: Exception, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    def fail(*arguments: object) -> None:
        raise error

    monkeypatch.setattr(metrics_report, "ask", fail)
    values = {"task": "eval", "network": "net:make", "dataset": "net:data"}
    result = launcher.run(launcher.load_job(**values, ranks=2, output="out"))
    assert (result.exit_code, result.predictions) == (1, ())
    left = ["predictions.partial.npy", "labels.partial.npy"]
    assert [path.name for path in result.partial] == left
    assert {path.name for path in (tmp_path / "out").glob("*.npy")} == set(left)


def test_outputs_have_their_names_only_when_the_metrics_are_there(
    ranks: Ranks, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    def ask(job: Job, outputs: Path, labels: Path, *rest: object) -> dict[str, float]:
        assert np.load(outputs).shape == (4, 3)  # if we were killed now, this is what would be left
        assert {path.name for path in (tmp_path / "out").glob("*.npy")} == set(left)
        return {"loss": 0.5}

    monkeypatch.setattr(metrics_report, "ask", ask)
    left = ["predictions.partial.npy", "labels.partial.npy"]
    values = {"task": "eval", "network": "net:make", "dataset": "net:data"}
    result = launcher.run(launcher.load_job(**values, ranks=2, output="out"))
    assert result.metrics == {"loss": 0.5}
    assert [path.name for path in result.predictions] == ["predictions.npy"]
    found = {path.name for path in (tmp_path / "out").glob("*.npy")}
    assert found == {"predictions.npy", "labels.npy"}


def test_predictions_that_could_not_be_compared_are_no_result(
    ranks: Ranks, make_job: MakeJob, tmp_path: Path
) -> None:
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "single").touch()  # where the folder of the one process would be
    result = launcher.run(make_job(output="out", check_single=True))
    assert (result.exit_code, result.predictions) == (1, ())
    assert {path.name for path in (tmp_path / "out").glob("*.npy")} == {"predictions.partial.npy"}
    written = json.loads((tmp_path / "out" / "summary.json").read_text())
    assert written["cause"]["kind"] == "NotADirectoryError"


def test_the_summary_of_a_failed_run_is_written_too(
    ranks: Ranks, make_job: MakeJob, cause: RootCause, tmp_path: Path
) -> None:
    ranks.cause = cause
    assert launcher.run(make_job(output="out")).exit_code == 1
    written = json.loads((tmp_path / "out" / "summary.json").read_text())
    assert (written["status"], written["cause"]["kind"]) == ("failed", "ValueError")
    assert written["cause"]["log"] == "/out/logs/rank_1.log"
    assert "bytes_read" not in written["ranks"][1]  # it never said done


def test_the_summary_of_an_earlier_run_is_gone_before_a_rank_starts(
    ranks: Ranks, make_job: MakeJob
) -> None:
    launcher.run(make_job(output="out"))
    launcher.run(make_job(output="out"))
    assert ranks.summary_at_start == ""


def test_a_rank_table_may_lie_in_the_output_folder(
    ranks: Ranks, make_job: MakeJob, tmp_path: Path
) -> None:
    table = tmp_path / "out" / "rank_table.json"
    table.parent.mkdir()
    table.write_text(TABLE.read_text())
    assert launcher.run(make_job(rank_table="out/rank_table.json", output="out")).ok


def test_labels_give_an_accuracy(ranks: Ranks, make_job: MakeJob, tmp_path: Path) -> None:
    np.save(tmp_path / "y.npy", np.array([0, 1, 2, 2]))
    assert launcher.run(make_job(labels="y.npy")).accuracy == 0.75


def test_labels_that_do_not_fit_are_a_warning_and_the_verified_result_stays(
    ranks: Ranks, make_job: MakeJob, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    np.save(tmp_path / "y.npy", np.array([0, 1]))
    assert execute(make_job(labels="y.npy", output="out"), as_json=False) == 0
    assert (tmp_path / "out" / "predictions.npy").exists()
    written = json.loads((tmp_path / "out" / "summary.json").read_text())
    assert (written["status"], written["accuracy"]) == ("ok", None)
    assert "one label for each prediction" in written["warnings"][0]
    assert capsys.readouterr().err == f"warning: {written['warnings'][0]}\n"


def test_a_second_run_in_the_same_folder_is_refused_and_touches_nothing(
    ranks: Ranks, make_job: MakeJob, tmp_path: Path
) -> None:
    def start_another(message: Message) -> None:
        (tmp_path / "out" / "summary.json").touch()
        with pytest.raises(FolderInUseError):
            launcher.run(make_job(output="out"))
        assert (tmp_path / "out" / "summary.json").exists()
        heard.append(message)

    heard: list[Message] = []
    assert launcher.run(make_job(output="out"), start_another).ok
    assert len(heard) == 1


def test_a_full_disk_takes_the_summary_and_not_the_cause(
    ranks: Ranks, make_job: MakeJob, cause: RootCause, monkeypatch: pytest.MonkeyPatch
) -> None:
    def no_space(path: Path) -> None:
        raise OSError(28, "No space left on device", str(path))

    monkeypatch.setattr(launch, "atomic_file", no_space)
    ranks.cause = cause
    result = launcher.run(make_job(output="out"))
    assert (result.exit_code, result.cause) == (1, cause)
    assert result.warnings == (f"no summary: {result.summary}: No space left on device",)


@pytest.mark.parametrize(
    ("output", "said"), [("taken", "taken/logs: File exists"), ("x" * 300, "File name too long")]
)
def test_a_folder_that_cannot_be_made_is_one_line_and_exit_code_2(
    ranks: Ranks, tmp_path: Path, output: str, said: str, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "taken").mkdir()
    (tmp_path / "taken" / "logs").touch()
    network = ["--network=net:make", "--predict-data=net:data"]
    assert cli.main([*network, "--ranks=2", "--output", output]) == 2
    printed = capsys.readouterr().err
    assert printed.startswith("launcher: ") and printed.endswith(f"{said}\n")
    assert ranks.specs == ()


def test_a_reader_that_leaves_does_not_end_the_run(
    ranks: Ranks, make_job: MakeJob, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    reader, writer = os.pipe()
    os.close(reader)
    with open(writer, "w") as output:
        monkeypatch.setattr(sys, "stdout", output)
        with StandardStreams():
            assert execute(make_job(output="out"), as_json=False) == 0
    assert json.loads((tmp_path / "out" / "summary.json").read_text())["status"] == "ok"


def test_ranks_read_the_table_that_was_checked(
    ranks: Ranks, make_job: MakeJob, tmp_path: Path
) -> None:
    launcher.run(make_job(rank_table=TABLE, output="out"))
    named = ranks.specs[0].environment["RANK_TABLE_FILE"]
    assert Path(named).read_text() == TABLE.read_text()


def test_a_rank_table_that_is_not_there_is_an_error(ranks: Ranks, make_job: MakeJob) -> None:
    with pytest.raises(RankTableError, match="none.json: No such file"):
        launcher.run(make_job(rank_table="none.json"))


def test_a_rank_table_that_is_never_filled_in_ends_at_the_deadline(
    ranks: Ranks, make_job: MakeJob, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    table = tmp_path / "hccl.json"
    table.write_text('{"status": "initializing"}')
    with pytest.raises(RankTableTimeout, match="--phase-timeout") as caught:
        launcher.run(make_job(rank_table=table, phase_timeout=1e-6))
    assert caught.value.exit_code == 124
    assert not ranks.specs


def test_the_command_prints_the_summary_as_json_and_nothing_else(
    ranks: Ranks, make_job: MakeJob, capsys: pytest.CaptureFixture[str]
) -> None:
    assert execute(make_job(), as_json=True) == 0
    printed = capsys.readouterr()
    assert json.loads(printed.out)["status"] == "ok"
    assert "2 ranks, simulated" in printed.err


def test_the_command_tells_the_cause_first_on_standard_error(
    ranks: Ranks, make_job: MakeJob, cause: RootCause, capsys: pytest.CaptureFixture[str]
) -> None:
    ranks.cause = replace(cause, exit_code=7)
    assert execute(make_job(), as_json=False) == 7
    assert capsys.readouterr().err.startswith("failed: rank 1 (10.0.0.7, device 3) in phase load")
