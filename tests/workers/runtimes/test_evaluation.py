"""Metrics are those of mindspore.train.Model.eval, from any kind of labelled data."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from mindspore.dataset import NumpySlicesDataset

from workers.data import DataError
from workers.entry_point import FactoryError
from workers.errors import InputError
from workers.runtimes.evaluation import Evaluation, MetricsError, Passed
from workers.runtimes.single import SingleRuntime
from workers.spec import WorkerSpec

MakeSpec = Callable[..., WorkerSpec]

FACTORIES = """
import numpy as np
from mindspore import Tensor, nn
from mindspore.train import Accuracy, MAE, Metric

def loss():
    return nn.SoftmaxCrossEntropyWithLogits(sparse=True, reduction="mean")

def metrics():
    return {"Accuracy": Accuracy(), "distance": MAE()}

def one_metric():
    return Accuracy()

class Spread(Metric):
    def clear(self):
        self.scores = []

    def update(self, scores, labels):
        self.scores.append(scores.asnumpy())

    def eval(self):
        scores = np.concatenate(self.scores)
        return {"most": scores.max(), 0: Tensor(scores[0]), "of": (len(scores), np.int64(2))}

def nothing():
    return None
"""
# Two batches, of 2 and 1 samples: the 1st and the 3rd sample score highest where they should.
SCORES = [np.array([[3.0, 1.0], [2.0, 0.5]], np.float32), np.array([[0.0, 1.0]], np.float32)]
LABELS = [np.array([0, 1], np.int32), np.array([1], np.int32)]


@pytest.fixture
def evaluation(make_spec: MakeSpec, tmp_path: Path) -> Callable[..., Evaluation]:
    """Return a maker of evaluations; loss and metrics are functions of FACTORIES, or names."""
    path = tmp_path / "factories.py"
    path.write_text(FACTORIES)

    def make(loss: str | None = None, metrics: tuple[str, ...] = ("accuracy",)) -> Evaluation:
        names = tuple(f"{path}:{name[1:]}" if name.startswith(":") else name for name in metrics)
        named = loss if loss is None else f"{path}:{loss}"
        return Evaluation(make_spec(task="eval", loss=named, metrics=names))

    return make


def pairs() -> Iterator[tuple[np.ndarray, np.ndarray]]:
    yield from zip(SCORES, LABELS, strict=True)


@pytest.mark.parametrize("data", [list(pairs()), pairs()], ids=["list", "generator"])
def test_batches_count_by_their_samples(evaluation: Callable[..., Evaluation], data: Any) -> None:
    delivered: list[tuple[np.ndarray, ...]] = []
    values = evaluation().run(Passed(), data, delivered.append)
    assert values == {"accuracy": 2 / 3}
    for (scores, labels), expected in zip(delivered, pairs(), strict=True):
        np.testing.assert_array_equal(scores, expected[0])
        np.testing.assert_array_equal(labels, expected[1])


def test_a_mindspore_dataset_is_evaluated_as_it_is(
    evaluation: Callable[..., Evaluation],
) -> None:
    columns = {"scores": np.concatenate(SCORES), "labels": np.concatenate(LABELS)}
    data = NumpySlicesDataset(columns, shuffle=False).batch(2)
    values = evaluation("loss", ("accuracy", "loss")).run(Passed(), data, lambda outputs: None)
    # The loss of a batch is the mean of log(sum(exp(scores))) - score of the label; that of all
    # is the mean over the batches.
    losses = [
        np.mean(np.log(np.exp(scores).sum(1)) - scores[np.arange(len(labels)), labels])
        for scores, labels in pairs()
    ]
    assert values["accuracy"] == 2 / 3
    assert values["loss"] == pytest.approx(np.mean(losses), rel=1e-6)


@pytest.mark.parametrize(
    ("metrics", "names"),
    [((":metrics",), ["Accuracy", "distance"]), ((":one_metric", "mse"), ["Accuracy", "mse"])],
)
def test_metrics_have_the_names_that_the_user_gives_them(
    evaluation: Callable[..., Evaluation], metrics: tuple[str, ...], names: list[str]
) -> None:
    one_hot = np.eye(2, dtype=np.float32)
    data = [(one_hot, one_hot)]
    values = evaluation(metrics=metrics).run(Passed(), data, lambda outputs: None)
    assert sorted(values) == sorted(names)
    assert values["Accuracy"] == 1.0


@pytest.mark.parametrize(
    ("loss", "metrics", "said"),
    [
        (None, ("accuracy", "loss"), "the metric loss needs a loss; add loss"),
        (None, ("acuracy",), "'acuracy' gives no metrics .* name some of .*accuracy"),
        (None, ("topk",), "cannot make 'topk' from its name: .*'k'; name a function that returns"),
        (None, (":nothing",), "nothing' gives no metrics"),
        ("nothing", ("accuracy",), "it returned something of type NoneType"),
    ],
)
def test_what_cannot_be_evaluated_with_is_refused_before_anything_runs(
    evaluation: Callable[..., Evaluation], loss: str | None, metrics: tuple[str, ...], said: str
) -> None:
    with pytest.raises(MetricsError, match=said) as caught:
        evaluation(loss, metrics)
    assert isinstance(caught.value, InputError)


def test_whole_arrays_are_cut_into_batches_of_the_size_that_the_job_names(
    make_spec: MakeSpec,
) -> None:
    delivered: list[tuple[np.ndarray, ...]] = []
    spec = make_spec(task="eval", metrics=("accuracy",), batch_size=2)
    data = (np.concatenate(SCORES), np.concatenate(LABELS))
    assert Evaluation(spec).run(Passed(), data, delivered.append) == {"accuracy": 2 / 3}
    assert [len(labels) for _, labels in delivered] == [2, 1]


def test_what_a_metric_of_the_user_returns_can_be_written_as_json(
    evaluation: Callable[..., Evaluation],
) -> None:
    values = evaluation(metrics=(":Spread",)).run(Passed(), pairs(), lambda outputs: None)
    assert values == {"Spread": {"most": 3.0, "0": [3.0, 1.0], "of": [3, 2]}}
    assert json.loads(json.dumps(values)) == values


def test_a_batch_without_labels_is_named(evaluation: Callable[..., Evaluation]) -> None:
    data = [(SCORES[0], LABELS[0]), (SCORES[1],)]
    with pytest.raises(DataError, match="batch 1 is made of 1 values"):
        evaluation().run(Passed(), data, lambda outputs: None)
    named = [{"scores": SCORES[0], "labels": LABELS[0]}]  # which of them are the labels?
    with pytest.raises(DataError, match="batch 0 is made of values by name, where .*input, label"):
        evaluation().run(Passed(), named, lambda outputs: None)


def test_a_dataset_of_other_than_two_columns_is_refused(
    evaluation: Callable[..., Evaluation],
) -> None:
    rows = {"scores": SCORES[0], "labels": LABELS[0], "names": LABELS[0]}
    with pytest.raises(DataError, match="made of the columns scores, labels, names, where .*label"):
        evaluation().run(Passed(), NumpySlicesDataset(rows), lambda outputs: None)


def test_an_error_in_the_data_of_the_user_comes_through(
    evaluation: Callable[..., Evaluation],
) -> None:
    def broken() -> Iterator[tuple[np.ndarray, np.ndarray]]:
        yield SCORES[0], LABELS[0]
        raise ZeroDivisionError("in the data")

    with pytest.raises(FactoryError, match="raised ZeroDivisionError: in the data"):
        evaluation().run(Passed(), broken(), lambda outputs: None)


def test_one_device_evaluates_with_the_weights_it_loaded(
    make_spec: MakeSpec, tmp_path: Path
) -> None:
    (tmp_path / "task.py").write_text(
        "import numpy as np\n"
        "from mindspore import nn\n"
        "def net():\n"
        "    return nn.Dense(2, 2, has_bias=False)\n"
        "def data(batch_size):\n"
        "    rows = np.array([[3, 1], [2, 0.5], [0, 1]], np.float32)\n"
        "    labels = np.array([1, 0, 0], np.int32)\n"
        "    for start in range(0, 3, batch_size):\n"
        "        yield rows[start:start + batch_size], labels[start:start + batch_size]\n"
    )
    spec = make_spec(task="eval", metrics=("accuracy",), batch_size=2, device="cpu")
    named = {"network": f"{tmp_path}/task.py:net", "predict_data": f"{tmp_path}/task.py:data"}
    runtime = SingleRuntime(replace(spec, **named))
    runtime.open()
    swap = np.array([[0, 1], [1, 0]], np.float32)
    runtime.load({name: swap for name in runtime.wanted_parameters()})
    runtime.compile()
    delivered: list[tuple[np.ndarray, ...]] = []
    # swapped, the scores are highest for classes 1, 1 and 0
    assert runtime.evaluate(delivered.append) == {"accuracy": 2 / 3}
    assert [len(scores) for scores, _ in delivered] == [2, 1]
