"""Supervision: events in, signals out. Every example is worked by hand, and nothing waits."""

from __future__ import annotations

from signal import SIGINT, SIGKILL, SIGSEGV, SIGTERM, SIGUSR1

import pytest

from launcher.events import (
    EngineLost,
    Event,
    Exited,
    Heard,
    Interrupted,
    ResultRefused,
    Send,
    Tick,
)
from launcher.outcome import Limits
from launcher.supervision import Supervision
from workers.protocol import Done, Failed, PhaseEntered, PredictionDigest, RankReport, Waiting

LIMITS = Limits(total_s=100, phase_s=30, grace_s=5)


def supervise(ranks: int = 3) -> Supervision:
    return Supervision(range(ranks), LIMITS, started_at_s=0)


def failed(rank: int, at_s: float, exit_code: int = 1, echo_of: int | None = None) -> Heard:
    message = Failed(rank, "load", "OSError", "no such file", "Traceback ...", exit_code, echo_of)
    return Heard(message, at_s)


def done(rank: int, at_s: float = 1) -> Heard:
    return Heard(Done(rank, RankReport({}, 0, 0, 0, batches=1)), at_s)


def entered(rank: int, phase: str, at_s: float) -> Heard:
    return Heard(PhaseEntered(rank, phase), at_s)


def left(rank: int, at_s: float = 1, exit_code: int = 0, signal: int = 0) -> Exited:
    return Exited(rank, exit_code, signal, at_s)


def test_a_run_is_good_when_every_rank_said_done_and_left_with_zero() -> None:
    run = supervise(2)
    for event in (done(0), done(1), left(1), left(0)):
        assert run.handle(event) == []
    assert run.finished
    assert run.cause is None
    assert run.followers == 0


def test_the_first_failure_is_the_cause_and_the_others_are_told_to_end() -> None:
    run = supervise()
    assert run.handle(failed(1, at_s=2)) == []
    assert run.handle(failed(2, at_s=2.1, exit_code=7)) == []
    assert run.next_due_s == 2.25
    assert run.handle(Tick(2.25)) == [Send(0, SIGTERM)]  # the others are on their way out
    for rank in range(3):
        run.handle(left(rank, at_s=3, exit_code=1))
    assert run.finished
    assert run.cause is not None
    assert (run.cause.rank, run.cause.phase, run.cause.kind) == (1, "load", "OSError")
    assert (run.cause.traceback, run.cause.exit_code) == ("Traceback ...", 1)
    assert run.followers == 2


def words_of(rank: int, kind: str, failed_s: float, at_s: float) -> Heard:
    return Heard(Failed(rank, "load", kind, "words", "", 1, None, failed_s), at_s)


def test_of_ranks_that_fail_at_once_the_first_is_to_blame_not_the_one_heard_first() -> None:
    run = supervise()
    run.handle(words_of(2, "KeyError", failed_s=2.09, at_s=2.1))
    run.handle(words_of(1, "OSError", failed_s=2.0, at_s=2.2))
    run.handle(words_of(0, "ValueError", failed_s=2.05, at_s=2.2))
    assert run.cause is not None
    assert (run.cause.rank, run.cause.kind) == (1, "OSError")


def test_a_rank_that_died_first_is_to_blame_for_what_others_said_before_we_knew() -> None:
    run = supervise()
    run.handle(words_of(2, "TimeoutError", failed_s=2.09, at_s=2.1))
    run.handle(left(1, at_s=2.0, signal=SIGSEGV))
    assert run.cause is not None
    assert (run.cause.rank, run.cause.kind) == (1, "SIGSEGV")


def test_whoever_is_heard_after_all_were_told_to_end_is_not_to_blame() -> None:
    run = supervise()
    run.handle(words_of(2, "KeyError", failed_s=2.1, at_s=2.1))
    assert run.handle(Tick(2.35)) == [Send(0, SIGTERM), Send(1, SIGTERM)]
    run.handle(words_of(1, "OSError", failed_s=2.0, at_s=2.4))
    assert run.cause is not None
    assert run.cause.rank == 2


def test_a_rank_that_is_ended_by_being_asked_for_its_stacks_is_not_the_cause() -> None:
    run = supervise()
    run.handle(entered(0, "started", at_s=0))
    run.handle(Tick(30))
    run.handle(left(1, at_s=29, signal=SIGUSR1))  # it had no handler yet
    assert run.cause is not None
    assert run.cause.exit_code == 124


def test_ranks_that_failed_with_the_same_words_are_known() -> None:
    run = supervise()
    for rank, kind in ((1, "OSError"), (0, "OSError"), (2, "ValueError")):
        run.handle(words_of(rank, kind, failed_s=2.0, at_s=2.0))
    assert run.alike == (0,)
    assert run.followers == 2


def test_the_exit_code_is_that_of_the_first_failed_rank() -> None:
    run = supervise()
    run.handle(failed(1, at_s=2, exit_code=2))
    assert run.cause is not None
    assert run.cause.exit_code == 2


def test_a_failure_that_claims_exit_code_zero_is_still_a_failure() -> None:
    run = supervise()
    run.handle(failed(1, at_s=2, exit_code=0))
    assert run.cause is not None
    assert run.cause.exit_code == 1


def test_ranks_that_do_not_end_within_the_grace_period_are_killed() -> None:
    run = supervise()
    run.handle(failed(0, at_s=2))
    run.handle(left(0, at_s=2.25, exit_code=1))
    run.handle(left(1, at_s=3, signal=SIGTERM))
    assert run.next_due_s == 7.25
    assert run.handle(Tick(7.2)) == []
    assert run.handle(Tick(7.25)) == [Send(2, SIGKILL)]
    assert not run.finished
    run.handle(left(2, at_s=7.3, signal=SIGKILL))
    assert run.finished
    assert run.followers == 2


def test_a_process_that_not_even_sigkill_ends_does_not_hold_the_run_up_for_ever() -> None:
    run = supervise(1)
    run.handle(failed(0, at_s=2))
    run.handle(Tick(3))
    run.handle(Tick(8))
    assert run.next_due_s == 13
    run.handle(Tick(13))
    assert run.finished


def test_root_cause_is_the_rank_that_died_not_the_peers_that_missed_it() -> None:
    # Rank 0 notices that rank 2 is gone before the kernel has told us of rank 2.
    run = supervise()
    assert run.handle(failed(0, at_s=2, echo_of=2)) == []
    assert run.handle(left(0, at_s=2.1, exit_code=1)) == []
    assert run.handle(left(2, at_s=2.2, signal=SIGSEGV)) == []
    assert run.handle(Tick(3)) == [Send(1, SIGTERM)]
    assert run.cause is not None
    assert (run.cause.rank, run.cause.kind) == (2, "SIGSEGV")
    assert run.cause.exit_code == 128 + SIGSEGV
    assert "before it was done" in run.cause.message


def test_an_echo_is_blamed_when_nothing_else_shows_up_within_the_grace_period() -> None:
    run = supervise()
    run.handle(failed(0, at_s=2, echo_of=2))
    run.handle(failed(1, at_s=3, echo_of=2))
    assert run.next_due_s == 7
    assert run.handle(Tick(7)) == [Send(2, SIGTERM)]  # 0 and 1 are on their way out
    assert run.cause is not None
    assert run.cause.rank == 0


def test_echoes_are_blamed_at_once_when_every_rank_has_left() -> None:
    run = supervise(2)
    run.handle(failed(0, at_s=2, echo_of=1))
    run.handle(failed(1, at_s=2, echo_of=0))
    run.handle(left(0, at_s=2, exit_code=1))
    run.handle(left(1, at_s=2, exit_code=1))
    assert run.finished
    assert run.cause is not None
    assert (run.cause.rank, run.followers) == (0, 1)


@pytest.mark.parametrize("order", ["echo first", "done first"])
def test_a_peer_that_was_missed_because_it_was_done_had_fewer_batches(order: str) -> None:
    run = supervise(2)
    events = [failed(0, at_s=2, echo_of=1), done(1, at_s=2)]
    for event in events if order == "echo first" else reversed(events):
        run.handle(event)
    assert run.cause is not None
    assert (run.cause.rank, run.cause.kind, run.cause.exit_code) == (1, "VerificationError", 3)
    assert "was done after 1 batches while rank 0 still waited for it" in run.cause.message


def test_leaving_with_zero_before_done_is_a_failure() -> None:
    run = supervise(2)
    assert run.handle(left(0)) == []
    assert run.handle(Tick(2)) == [Send(1, SIGTERM)]
    assert run.cause is not None
    assert (run.cause.rank, run.cause.exit_code) == (0, 1)
    assert "exit code 0 before it was done" in run.cause.message


def test_a_crash_after_done_is_a_failure() -> None:
    run = supervise(1)
    run.handle(done(0))
    run.handle(left(0, signal=SIGSEGV))
    assert run.cause is not None
    assert run.cause.exit_code == 128 + SIGSEGV
    assert "after it was done" in run.cause.message


def test_a_sigkill_that_we_did_not_send_is_likely_out_of_memory() -> None:
    run = supervise()
    run.handle(entered(1, "load", at_s=1))
    run.handle(left(1, signal=SIGKILL))
    assert run.cause is not None
    assert "likely out of memory" in run.cause.message
    assert (run.cause.phase, run.cause.exit_code) == ("load", 137)


def test_a_hung_rank_shows_its_stacks_before_it_is_told_to_end() -> None:
    run = supervise()
    for rank in range(3):
        run.handle(entered(rank, "load", at_s=rank))
    run.handle(entered(0, "compile", at_s=4))
    run.handle(entered(2, "compile", at_s=5))
    assert run.next_due_s == 31  # rank 1 entered load at 1
    everybody = (0, 1, 2)
    assert run.handle(Tick(31)) == [Send(rank, SIGUSR1) for rank in everybody]
    assert run.next_due_s == 32
    assert run.handle(Tick(32)) == [Send(rank, SIGTERM) for rank in everybody]
    assert run.handle(Tick(37)) == [Send(rank, SIGKILL) for rank in everybody]
    assert run.cause is not None
    assert (run.cause.rank, run.cause.phase, run.cause.exit_code) == (1, "load", 124)
    assert "rank 1 did not get on in phase load for 30 s" in run.cause.message


def test_the_rank_that_is_furthest_behind_is_blamed_for_a_deadline() -> None:
    # 0 entered predict first, so its deadline is the first; but it may be waiting for 1 and 2.
    run = supervise()
    run.handle(entered(0, "predict", at_s=1))
    run.handle(entered(1, "compile", at_s=2))
    run.handle(entered(2, "compile", at_s=3))
    run.handle(Tick(31))
    assert run.cause is not None
    assert run.cause.rank is None  # there are two
    assert "ranks 1-2 did not get on in phase compile" in run.cause.message


def test_of_ranks_at_the_same_point_those_that_wait_for_another_are_not_to_blame() -> None:
    run = supervise()
    for rank in range(3):
        run.handle(entered(rank, "predict", at_s=1))
    run.handle(Tick(31))
    assert run.cause is not None and run.cause.rank is None  # nobody is behind the others
    for rank in (0, 2):
        run.handle(Heard(Waiting(rank, 1, "AllReduce after MatMul"), at_s=31.5))
    assert run.cause.rank == 1
    assert "rank 1 did not get on in phase predict" in run.cause.message
    assert "ranks 0, 2 waited for rank 1 in AllReduce after MatMul" in run.cause.message
    assert run.handle(Tick(32)) == [Send(rank, SIGTERM) for rank in (0, 1, 2)]
    run.handle(Heard(Waiting(1, 0, "too late"), at_s=33))
    assert "too late" not in run.cause.message


def test_ranks_that_never_said_a_word_have_no_stacks_to_wait_for() -> None:
    run = supervise(1)
    run.handle(Tick(30))
    assert run.next_due_s == 30
    assert run.handle(Tick(30)) == [Send(0, SIGTERM)]


@pytest.mark.parametrize(
    ("event", "worth"),
    [
        (left(0, signal=SIGSEGV), True),
        (left(0, exit_code=1), True),
        (failed(0, at_s=1, exit_code=1), True),
        (failed(0, at_s=1, exit_code=2), False),  # bad input stays bad
        (failed(0, at_s=1, exit_code=3), False),
        (EngineLost(137, "killed", 1, worth_retrying=True), True),
        (EngineLost(1, "the host is gone", 1), False),
        (Interrupted(SIGINT, 1), False),
        (ResultRefused(None, "OSError", "disk full", 1, at_s=1), False),
        (Tick(30), False),  # what hangs once hangs twice
    ],
)
def test_another_try_is_worth_it_after_a_crash_only(event: Event, worth: bool) -> None:
    run = supervise()
    run.handle(event)
    assert run.cause is not None
    assert run.cause.worth_retrying == worth


def test_the_time_of_earlier_attempts_counts() -> None:
    run = Supervision(range(1), LIMITS, started_at_s=50, late_s=80)
    assert run.next_due_s == 70


def test_ranks_that_all_wait_for_each_other_are_all_named() -> None:
    run = supervise(2)
    for rank in range(2):
        run.handle(entered(rank, "started", at_s=0))
    run.handle(Tick(30))
    run.handle(Heard(Waiting(0, 1, "AllGather"), at_s=30.1))
    run.handle(Heard(Waiting(1, 0, "AllReduce"), at_s=30.1))
    assert run.cause is not None
    assert "rank 0 waited for rank 1 in AllGather" in run.cause.message
    assert "rank 1 waited for rank 0 in AllReduce" in run.cause.message


def test_every_batch_is_a_sign_of_life() -> None:
    run = supervise(1)
    run.handle(entered(0, "predict", at_s=10))
    run.handle(Heard(PredictionDigest(0, 0, (), (), ()), at_s=35))
    assert run.next_due_s == 65
    assert run.handle(Tick(64)) == []


def test_the_whole_run_has_a_deadline_too() -> None:
    run = supervise(2)
    for second in range(0, 100, 10):
        for rank in range(2):
            run.handle(Heard(PredictionDigest(rank, second // 10, (), (), ()), at_s=second))
    assert run.next_due_s == 100
    assert run.handle(Tick(100)) == [Send(0, SIGUSR1), Send(1, SIGUSR1)]
    assert run.cause is not None
    assert "the run took longer than 100 s" in run.cause.message


@pytest.mark.parametrize(("number", "exit_code"), [(SIGINT, 130), (SIGTERM, 143)])
def test_an_interrupt_ends_the_run_with_its_own_exit_code(number: int, exit_code: int) -> None:
    run = supervise(2)
    assert run.handle(Interrupted(number, 3)) == [Send(0, SIGTERM), Send(1, SIGTERM)]
    assert run.cause is not None
    assert (run.cause.rank, run.cause.exit_code) == (None, exit_code)


def test_the_second_interrupt_kills_at_once() -> None:
    run = supervise(2)
    run.handle(Interrupted(SIGINT, 3))
    assert run.handle(Interrupted(SIGINT, 3.1)) == [Send(0, SIGKILL), Send(1, SIGKILL)]


def test_an_interrupt_during_the_grace_period_kills_at_once_and_keeps_the_cause() -> None:
    run = supervise(2)
    run.handle(failed(0, at_s=2))
    assert run.handle(Interrupted(SIGINT, 3)) == [Send(0, SIGKILL), Send(1, SIGKILL)]
    assert run.cause is not None
    assert run.cause.kind == "OSError"


def test_the_loss_of_the_engine_is_the_end_of_every_rank() -> None:
    run = supervise()
    assert run.handle(EngineLost(137, "the fork server was killed", 2)) == []
    assert run.finished
    assert run.cause is not None
    assert (run.cause.rank, run.cause.exit_code, run.followers) == (None, 137, 3)


def test_a_refused_result_stops_the_ranks() -> None:
    run = supervise(2)
    refused = ResultRefused(1, "VerificationError", "batch 0 differs", 3, at_s=2)
    assert run.handle(refused) == [Send(0, SIGTERM), Send(1, SIGTERM)]
    assert run.cause is not None
    assert (run.cause.rank, run.cause.exit_code) == (1, 3)


def test_a_result_can_be_refused_after_the_last_rank_has_left() -> None:
    run = supervise(1)
    run.handle(done(0))
    run.handle(left(0))
    assert run.handle(ResultRefused(None, "OSError", "disk full", 1, at_s=2)) == []
    assert run.cause is not None
    assert run.cause.exit_code == 1
