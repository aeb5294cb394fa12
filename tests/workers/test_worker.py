"""The life of a rank, with a network in NumPy: what it says in which order, also when it fails."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from typing import Any, NoReturn

import numpy as np
import pytest

from launcher.collector import Collector
from workers import worker
from workers.errors import PeerLostError
from workers.protocol import (
    PHASES,
    Done,
    Expected,
    Failed,
    Message,
    PhaseEntered,
    Prediction,
    PredictionDigest,
)
from workers.resharding.checkpoint import open_checkpoint
from workers.resharding.checkpoint_file import write_checkpoint
from workers.resharding.layout import Layout
from workers.runtimes.runtime import WantedParameter
from workers.spec import WorkerSpec
from workers.worker import make_runtime, run_worker


class Multiplier:
    """Multiplies its input by its slice of the one parameter; writes down what it is asked."""

    def __init__(self) -> None:
        self.calls: list[str] = []
        self.inputs = [np.full((2, 3), number, np.float32) for number in (1, 2)]
        self.layouts: dict[str, WantedParameter] = {}
        self.slices: Mapping[str, np.ndarray] = {}

    def open(self) -> None:
        self.calls.append("open")

    def wanted_parameters(self) -> Mapping[str, WantedParameter]:
        self.calls.append("wanted_parameters")
        return self.layouts

    def load(self, slices: Mapping[str, np.ndarray]) -> None:
        self.calls.append("load")
        self.slices = slices

    def compile(self) -> None:
        self.calls.append("compile")

    def batches(self) -> Iterator[tuple[Any, ...]]:
        return ((value,) for value in self.inputs)

    def predict(self, batch: tuple[Any, ...]) -> tuple[np.ndarray, ...]:
        self.calls.append("predict")
        return (batch[0] * self.slices.get("scale", np.float32(10)),)

    def close(self) -> None:
        self.calls.append("close")


SPEC = WorkerSpec(
    rank=0,
    rank_size=2,
    device_id=0,
    server_id="localhost",
    device="simulated",
    network="net:make",
    predict_data="net:data",
)

Live = Callable[..., tuple[int, list[Message]]]


@pytest.fixture
def live(monkeypatch: pytest.MonkeyPatch) -> Live:
    """Return a function that lets a rank live; it returns its exit code and what it said."""

    def live(runtime: Multiplier, **fields: Any) -> tuple[int, list[Message]]:
        monkeypatch.setattr(worker, "make_runtime", lambda spec: runtime)
        messages: list[Message] = []
        with Collector(range(2)) as collector, ThreadPoolExecutor() as threads:
            spec = replace(SPEC, collector=collector.address, **fields)
            exit_code = threads.submit(run_worker, spec)
            while not exit_code.done():
                collector.socket.poll(50)
                messages += collector.receive()
        return exit_code.result(), messages

    return live


def raising(error: BaseException) -> Callable[..., NoReturn]:
    def fail(*_: Any) -> NoReturn:
        raise error

    return fail


def failure(messages: list[Message]) -> Failed:
    last = messages[-1]
    assert isinstance(last, Failed)
    return last


def test_a_rank_goes_through_all_phases_and_reports(live: Live) -> None:
    runtime = Multiplier()
    exit_code, messages = live(runtime)
    assert exit_code == 0
    assert [m.phase for m in messages if isinstance(m, PhaseEntered)] == list(PHASES)
    done = messages[-1]
    assert isinstance(done, Done)
    assert done.report.batches == 2
    assert list(done.report.phase_seconds) == list(PHASES[:-1])
    assert done.report.peak_memory_bytes > 1 << 20
    assert runtime.calls[:4] == ["open", "wanted_parameters", "load", "compile"]
    assert runtime.calls[4:6] == ["predict", "predict"]
    assert set(runtime.calls[6:]) == {"close"}


def test_the_owner_sends_its_outputs_and_another_rank_their_digests(live: Live) -> None:
    _, messages = live(Multiplier(), rank=0)
    predictions = [m for m in messages if isinstance(m, Prediction)]
    assert [p.batch for p in predictions] == [0, 1]
    np.testing.assert_array_equal(predictions[1].outputs[0], np.full((2, 3), 20, np.float32))
    _, messages = live(Multiplier(), rank=1)
    digests = [m for m in messages if isinstance(m, PredictionDigest)]
    assert digests == [PredictionDigest.of(1, p.batch, p.outputs, p.inputs) for p in predictions]
    assert predictions[0].inputs != predictions[1].inputs


@pytest.mark.parametrize(
    ("method", "phase"),
    [
        ("open", "context"),
        ("wanted_parameters", "layout"),
        ("load", "load"),
        ("compile", "compile"),
        ("batches", "predict"),
        ("predict", "predict"),
    ],
)
def test_whatever_fails_is_told_with_its_phase_and_traceback(
    live: Live, method: str, phase: str
) -> None:
    runtime = Multiplier()
    setattr(runtime, method, raising(ValueError("no way")))
    exit_code, messages = live(runtime)
    failed = failure(messages)
    assert exit_code == failed.exit_code == 1
    assert (failed.phase, failed.kind, failed.message) == (phase, "ValueError", "no way")
    assert "in fail" in failed.traceback
    assert failed.echo_of is None
    assert runtime.calls[-1] == "close"


@pytest.mark.parametrize(("code", "expected"), [(0, 1), (None, 1), (5, 5), ("bye", 1)])
def test_leaving_early_is_a_failure_whatever_the_exit_code(
    live: Live, code: Any, expected: int
) -> None:
    runtime = Multiplier()
    runtime.compile = raising(SystemExit(code))  # type: ignore[method-assign]
    exit_code, messages = live(runtime)
    failed = failure(messages)
    assert exit_code == failed.exit_code == expected
    assert failed.kind == "EndedEarlyError"
    assert "was called before the rank was done" in failed.message
    assert "in fail" in failed.traceback


def test_the_loss_of_a_peer_is_an_echo(live: Live) -> None:
    runtime = Multiplier()
    runtime.predict = raising(PeerLostError(0, 1, "all-gather"))  # type: ignore[method-assign]
    assert failure(live(runtime)[1]).echo_of == 1


def test_the_loss_of_a_peer_is_an_echo_also_when_it_was_wrapped(live: Live) -> None:
    def wrap(*_: Any) -> NoReturn:
        try:
            raise PeerLostError(0, 1, "all-gather")
        except PeerLostError as error:
            raise RuntimeError("prediction failed") from error

    runtime = Multiplier()
    runtime.predict = wrap  # type: ignore[method-assign,assignment]
    failed = failure(live(runtime)[1])
    assert (failed.kind, failed.echo_of) == ("RuntimeError", 1)


def test_an_output_that_no_npy_file_can_hold_is_a_failure(live: Live) -> None:
    runtime = Multiplier()
    runtime.slices = {}
    runtime.predict = lambda batch: (np.array([None]),)  # type: ignore[method-assign]
    failed = failure(live(runtime)[1])
    assert (failed.phase, failed.kind) == ("predict", "ProtocolError")


def test_no_batch_at_all_is_bad_input(live: Live) -> None:
    runtime = Multiplier()
    runtime.inputs = []
    exit_code, messages = live(runtime)
    assert exit_code == 2
    assert "net:data gave no batch" in failure(messages).message


def test_parameters_without_a_checkpoint_are_bad_input(live: Live) -> None:
    runtime = Multiplier()
    runtime.layouts = {"scale": WantedParameter(Layout((2,), ((0,),)), (6,), "Float32")}
    exit_code, messages = live(runtime)
    assert exit_code == 2
    assert "'scale'" in failure(messages).message
    assert "names no checkpoint" in failure(messages).message


def test_a_rank_gets_its_slice_and_counts_its_bytes(live: Live, tmp_path: Path) -> None:
    # One whole file of 6 numbers; of two ranks, rank 1 wants the second half.
    whole = np.arange(6, dtype=np.float32)
    write_checkpoint(tmp_path / "whole.ckpt", {"scale": whole})
    runtime = Multiplier()
    runtime.layouts = {"scale": WantedParameter(Layout((2,), ((0,),)), (6,), "Float32")}
    exit_code, messages = live(runtime, rank=1, checkpoint=str(tmp_path / "whole.ckpt"))
    assert exit_code == 0, failure(messages).traceback
    np.testing.assert_array_equal(runtime.slices["scale"], [3, 4, 5])
    done = messages[-1]
    assert isinstance(done, Done)
    assert (done.report.bytes_read, done.report.bytes_held) == (12, 12)


def test_a_parameter_that_may_be_missing_is_left_to_the_runtime_and_reported(
    live: Live, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    write_checkpoint(tmp_path / "whole.ckpt", {"scale": np.arange(6, dtype=np.float32)})
    runtime = Multiplier()
    wanted = WantedParameter(Layout((2,), ((0,),)), (6,), "Float32")
    runtime.layouts = {"scale": wanted, "head.bias": wanted}
    path = str(tmp_path / "whole.ckpt")
    exit_code, messages = live(runtime, rank=1, checkpoint=path, allow_missing=("head.*",))
    assert exit_code == 0, failure(messages).traceback
    assert list(runtime.slices) == ["scale"]
    done = messages[-1]
    assert isinstance(done, Done) and done.report.initial == ("head.bias",)
    assert "no file has head.bias" in capfd.readouterr().out


def test_files_other_than_those_that_were_checked_are_refused(live: Live, tmp_path: Path) -> None:
    path = tmp_path / "whole.ckpt"
    write_checkpoint(path, {"scale": np.arange(6, dtype=np.float32)})
    version = open_checkpoint(str(path)).version
    runtime = Multiplier()
    runtime.layouts = {"scale": WantedParameter(Layout((2,), ((0,),)), (6,), "Float32")}
    assert live(runtime, checkpoint=str(path), checkpoint_version=version)[0] == 0
    os.utime(path, ns=(0, 0))
    exit_code, messages = live(runtime, checkpoint=str(path), checkpoint_version=version)
    assert exit_code == 2
    assert "not those that were checked" in failure(messages).message


def test_without_any_checkpoint_all_parameters_may_be_initial(live: Live) -> None:
    runtime = Multiplier()
    runtime.layouts = {"scale": WantedParameter(Layout((2,), ((0,),)), (6,), "Float32")}
    exit_code, messages = live(runtime, allow_missing=("*",))
    assert exit_code == 0, failure(messages).traceback
    assert runtime.slices == {}


def test_the_device_may_name_the_class_of_a_runtime(tmp_path: Path) -> None:
    (tmp_path / "own_runtime.py").write_text(
        "class Own:\n    def __init__(self, spec): self.rank = spec.rank\n"
    )
    runtime: Any = make_runtime(replace(SPEC, rank=1, device=f"{tmp_path}/own_runtime.py:Own"))
    assert runtime.rank == 1


def test_a_resumed_shard_whose_data_do_not_count_says_nothing_of_what_is_to_come(
    live: Live, tmp_path: Path
) -> None:
    (tmp_path / "data.py").write_text(
        "import numpy as np\n"
        "def shard(num_shards, shard_id):\n"
        "    yield np.zeros((8, 3), np.float32)[shard_id::num_shards]\n"
    )
    runtime = Multiplier()
    runtime.inputs = [np.zeros((2, 3), np.float32)] * 2
    shared = {"predict_data": f"{tmp_path}/data.py:shard", "parallel_mode": "data_parallel"}
    exit_code, messages = live(runtime, first_batch=2, **shared)  # each rank delivered one
    assert exit_code == 0, failure(messages).traceback
    assert not [m for m in messages if isinstance(m, Expected)]
    assert [m.batch for m in messages if isinstance(m, Prediction)] == [1]


def test_labels_follow_the_output_that_they_belong_to(live: Live) -> None:
    runtime = Multiplier()
    labels = np.array([0, 1])
    runtime.batches = lambda: iter([(runtime.inputs[0], labels)])  # type: ignore[method-assign]
    exit_code, messages = live(runtime, task="eval")
    (prediction,) = (m for m in messages if isinstance(m, Prediction))
    np.testing.assert_array_equal(prediction.outputs[0], runtime.inputs[0] * 10)
    np.testing.assert_array_equal(prediction.outputs[1], labels)
    assert exit_code == 0


def test_a_network_that_returns_nothing_is_bad_input(live: Live) -> None:
    runtime = Multiplier()
    runtime.predict = lambda batch: ()  # type: ignore[method-assign]
    exit_code, messages = live(runtime)
    assert exit_code == 2
    assert "construct returned nothing for batch 0" in failure(messages).message


def test_several_ranks_evaluate_networks_of_one_output_only(live: Live) -> None:
    runtime = Multiplier()
    runtime.batches = lambda: iter([(np.ones(2), np.ones(2))])  # type: ignore[method-assign]
    runtime.predict = lambda batch: (batch[0], batch[0])  # type: ignore[method-assign]
    exit_code, messages = live(runtime, task="eval")
    assert (exit_code, failure(messages).kind) == (2, "InputError")
    assert "returns 2 outputs" in failure(messages).message
