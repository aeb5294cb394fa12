"""Real ranks that end in every way there is; the launcher says how, and leaves nothing behind."""

from __future__ import annotations

import math
import os
import re
import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import Protocol

import numpy as np
import psutil
import pytest

from launcher.errors import SystemFailedError
from launcher.outcome import Outcome, RootCause
from launcher.run_folder import RunFolder
from workers.protocol import PHASES, Failed, Message, PhaseEntered

Run = Callable[..., Outcome]
Until = Callable[[Callable[[], object]], None]


class Clock(Protocol):
    ahead_s: float


def cause_of(outcome: Outcome) -> RootCause:
    """Return why a run failed; what is true of every failed run is checked here."""
    assert outcome.cause is not None
    assert outcome.exit_code == outcome.cause.exit_code != 0
    assert outcome.outputs == ()
    return outcome.cause


def pids_in(log: Path) -> tuple[int, int]:
    """Return the pids that a rank wrote down: its own and its parent's."""
    found = re.search(r"pid (\d+) of (\d+)", log.read_text())
    assert found is not None
    return int(found[1]), int(found[2])


def test_four_ranks_predict_and_every_batch_is_in_the_file(run: Run, folder: RunFolder) -> None:
    entered: list[PhaseEntered] = []

    def note(message: Message) -> None:
        if isinstance(message, PhaseEntered):
            entered.append(message)

    outcome = run("Healthy", ranks=4, watch=note)
    assert outcome.cause is None
    assert (outcome.exit_code, outcome.batches, outcome.followers) == (0, 3, 0)
    assert outcome.outputs == (folder.predictions(),)
    expected = np.repeat(np.array([0, 10, 20], np.float32), 2)[:, None] * np.ones(3, np.float32)
    np.testing.assert_array_equal(np.load(folder.predictions()), expected)
    assert sorted(outcome.reports) == [0, 1, 2, 3]
    for rank in range(4):
        assert [m.phase for m in entered if m.rank == rank] == list(PHASES)
        assert folder.log(rank).read_text().startswith("pid ")


def test_a_rank_has_its_own_group_and_environment_and_shows_no_key(
    run: Run, folder: RunFolder, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("NOT_OF_THIS_RANK", "1")
    assert run("ShowsItself").exit_code == 0
    assert np.load(folder.predictions()).all()


def test_a_rank_stays_on_its_cores_and_withheld_ones_are_no_failure(
    run: Run, folder: RunFolder
) -> None:
    first = min(os.sched_getaffinity(0))
    assert run("ShowsItsCores", cores=(first,)).exit_code == 0
    assert set(np.load(folder.predictions())) == {first}
    assert run("ShowsItsCores", cores=(4095,)).exit_code == 0
    assert "not bound to cores [4095]" in folder.log(0).read_text()


@pytest.mark.parametrize("behaviour", ["Raises", "RaisesWithoutStderr"])
def test_a_rank_that_raises_ends_the_run_with_its_error(
    run: Run, folder: RunFolder, behaviour: str
) -> None:
    cause = cause_of(run(behaviour))
    assert (cause.rank, cause.server_id, cause.device_id) == (1, "localhost", 5)
    assert (cause.phase, cause.kind) == ("compile", "ValueError")
    assert cause.message == "the weights are bad"
    assert "in misbehave" in cause.traceback
    assert cause.log == folder.log(1)
    assert "ValueError: the weights are bad" in cause.log.read_text()
    assert cause.exit_code == 1


def test_a_rank_may_print_through_an_object_of_its_own(run: Run, folder: RunFolder) -> None:
    assert run("ReplacesStdout").exit_code == 0
    assert folder.log(1).read_text().endswith("begun")


@pytest.mark.parametrize("behaviour", ["ExitsEarly", "ExitsEarlyWithoutPython"])
def test_exit_code_zero_before_done_is_a_failure(run: Run, behaviour: str) -> None:
    cause = cause_of(run(behaviour))
    assert (cause.rank, cause.phase, cause.exit_code) == (1, "compile", 1)
    assert "before" in cause.message


@pytest.mark.parametrize(
    ("behaviour", "number"), [("Segfaults", signal.SIGSEGV), ("Aborts", signal.SIGABRT)]
)
def test_a_rank_that_crashes_is_named_with_the_signal_and_its_stack_is_in_the_log(
    run: Run, behaviour: str, number: signal.Signals
) -> None:
    cause = cause_of(run(behaviour))
    assert (cause.rank, cause.kind, cause.exit_code) == (1, number.name, 128 + number)
    assert "in misbehave" in cause.log.read_text()


def test_a_rank_that_is_killed_from_outside_is_likely_out_of_memory(
    run: Run, folder: RunFolder
) -> None:
    def kill(message: Message) -> None:
        if message == PhaseEntered(1, "compile"):
            os.kill(pids_in(folder.log(1))[0], signal.SIGKILL)

    cause = cause_of(run("Waits", watch=kill))
    assert (cause.rank, cause.kind, cause.exit_code) == (1, "SIGKILL", 137)
    assert "likely out of memory" in cause.message


def test_of_ranks_that_fail_at_once_the_first_is_the_cause(run: Run, clock: Clock) -> None:
    heard: set[int] = set()

    def stop_the_clock(message: Message) -> None:  # a busy machine must not make the test fail
        if isinstance(message, Failed):
            heard.add(message.rank)
        clock.ahead_s = -3600 if heard and 1 not in heard else 0

    outcome = run("FailsFirst", watch=stop_the_clock)
    cause = cause_of(outcome)
    assert (cause.rank, cause.kind, cause.message) == (1, "SlowToSay", "the weights are bad")
    assert outcome.followers == 2


def test_the_peers_of_a_rank_that_died_are_not_to_blame(run: Run) -> None:
    outcome = run("LosesPeer", ranks=4)
    assert (cause_of(outcome).rank, cause_of(outcome).kind) == (1, "SIGKILL")
    assert outcome.followers == 3


@pytest.mark.parametrize("phase", ["context", "layout", "load", "compile", "predict"])
def test_a_rank_that_hangs_is_named_and_shows_where(
    run: Run, folder: RunFolder, clock: Clock, until: Until, phase: str
) -> None:
    awaited = {("done", 0), ("done", 2), (phase, 1)}

    def put_forward(message: Message) -> None:
        if isinstance(message, PhaseEntered):
            awaited.discard((message.phase, message.rank))
        if not awaited and not clock.ahead_s:
            until((folder.logs / "waiting").exists)
            clock.ahead_s = 600

    cause = cause_of(
        run("Hangs", network=phase, watch=put_forward, phase_s=600, total_s=math.inf)
    )
    assert (cause.rank, cause.phase, cause.exit_code) == (1, phase, 124)
    assert f"did not get on in phase {phase} for 600 s" in cause.message
    assert "in misbehave" in cause.log.read_text()


def test_a_rank_that_hangs_while_the_others_wait_for_it_is_named(run: Run, clock: Clock) -> None:
    awaited = {0, 1, 2}

    def put_forward(message: Message) -> None:
        if isinstance(message, PhaseEntered) and message.phase == "compile":
            awaited.discard(message.rank)
        clock.ahead_s = 0 if awaited else 600

    cause = cause_of(run("MissedByAll", watch=put_forward, phase_s=600, total_s=math.inf))
    assert (cause.rank, cause.phase, cause.exit_code) == (1, "compile", 124)
    assert "ranks 0, 2 waited for rank 1 in AllReduce after MatMul" in cause.message


def test_the_whole_run_has_a_deadline(run: Run, clock: Clock) -> None:
    def put_forward(message: Message) -> None:
        clock.ahead_s = 600

    cause = cause_of(run("AllWait", watch=put_forward, phase_s=3600, total_s=600))
    assert cause.exit_code == 124
    assert "the run took longer than 600 s" in cause.message


def test_a_rank_that_ignores_sigterm_is_killed_after_the_grace_period(run: Run) -> None:
    outcome = run("IgnoresSigterm", grace_s=0.2)
    assert (cause_of(outcome).rank, cause_of(outcome).message) == (0, "rank 0 fails")
    assert outcome.followers >= 1


def test_replicas_that_disagree_are_an_error_and_the_batches_before_are_kept(
    run: Run, folder: RunFolder
) -> None:
    outcome = run("Disagrees")
    cause = cause_of(outcome)
    assert (cause.rank, cause.kind, cause.exit_code) == (1, "VerificationError", 3)
    assert "batch 2: rank 1 says: output 0 has values" in cause.message
    assert not folder.predictions().exists()
    assert outcome.partial == (folder.partial(),)
    assert np.load(folder.partial()).shape == (4, 3)


def test_a_rank_that_predicts_less_is_an_error(run: Run) -> None:
    cause = cause_of(run("PredictsLess"))
    assert (cause.rank, cause.exit_code) == (1, 3)
    assert "batch 2: rank 1 did not predict it" in cause.message


def test_a_failed_run_does_not_pass_an_earlier_result_off_as_its_own(
    run: Run, folder: RunFolder
) -> None:
    run("Healthy")
    cause_of(run("Raises"))
    assert sorted(path.name for path in folder.root.glob("*.npy")) == ["predictions.previous.npy"]


def test_no_memory_of_a_run_has_a_name_by_which_it_could_be_left_behind(
    run: Run, living: Callable[[], list[psutil.Process]]
) -> None:
    seen: list[str] = []

    def look(message: Message) -> None:
        if message == PhaseEntered(1, "done"):  # all of it is in use
            for pid in ("self", *(process.pid for process in living())):
                with suppress(FileNotFoundError, ProcessLookupError):  # a rank that has ended
                    seen.append(Path(f"/proc/{pid}/maps").read_text())

    assert run("Healthy", watch=look).exit_code == 0
    assert len(seen) > 2
    assert "/dev/shm/" not in "".join(seen)


def test_what_a_rank_has_started_does_not_outlive_the_run(run: Run) -> None:
    assert run("LeavesProcesses").exit_code == 0  # and ``run`` finds nobody


def test_the_loss_of_the_fork_server_ends_everything(run: Run, folder: RunFolder) -> None:
    def kill(message: Message) -> None:
        if message == PhaseEntered(1, "compile"):
            os.kill(pids_in(folder.log(1))[1], signal.SIGKILL)

    cause = cause_of(run("Waits", watch=kill))
    assert (cause.rank, cause.kind, cause.exit_code) == (None, "EngineLost", 137)
    assert "the process that starts the ranks was ended by signal 9" in cause.message
    assert cause.log == folder.engine_log


def test_an_error_in_the_callers_own_code_leaves_no_process(
    run: Run, living: Callable[[], list[object]]
) -> None:
    def fail(message: Message) -> None:
        raise KeyError("in watch")

    with pytest.raises(KeyError, match="in watch"):
        run("AllWait", watch=fail)
    assert living() == []


def test_what_the_system_refuses_while_ranks_run_ends_them_with_one_error(
    run: Run, living: Callable[[], list[object]]
) -> None:
    def fail(message: Message) -> None:
        raise OSError(24, "Too many open files", "/somewhere")

    with pytest.raises(SystemFailedError, match="^/somewhere: Too many open files$") as caught:
        run("AllWait", watch=fail)
    assert caught.value.exit_code == 1
    assert living() == []


def test_a_run_works_outside_the_main_thread(run: Run) -> None:
    outcomes: list[Outcome] = []
    thread = threading.Thread(target=lambda: outcomes.append(run("Healthy")))
    thread.start()
    thread.join()
    assert [outcome.exit_code for outcome in outcomes] == [0]


@pytest.fixture
def no_mindspore(tmp_path: Path) -> Iterator[str]:
    """Return a folder to put on PYTHONPATH: importing mindspore fails there, at once."""
    (tmp_path / "mindspore.py").write_text(
        "import sys\nraise ImportError('no driver for ' + ' '.join(sys.orig_argv[1:4]))\n"
    )
    yield str(tmp_path)


def test_a_rank_on_a_device_is_an_interpreter_of_its_own(
    run: Run, folder: RunFolder, no_mindspore: str
) -> None:
    cause = cause_of(run("", device="ascend", environment={"PYTHONPATH": no_mindspore}))
    assert (cause.phase, cause.kind) == ("started", "ImportError")
    assert cause.message == "no driver for -P -m workers"
    assert "ImportError: no driver" in cause.log.read_text()


def test_modules_that_cannot_be_preloaded_are_named(run: Run, no_mindspore: str) -> None:
    cause = cause_of(run("", device="simulated", environment={"PYTHONPATH": no_mindspore}))
    assert (cause.kind, cause.exit_code) == ("EngineLost", 1)
    words = "ImportError: no driver for -P -m workers.fork_server"
    assert cause.message.endswith(f"its last words: {words}")
