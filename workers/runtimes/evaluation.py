"""Evaluate a network as ``mindspore.train.Model.eval`` does, with the user's loss and metrics."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any

import mindspore
import numpy as np
from mindspore import nn
from mindspore.dataset import Dataset, GeneratorDataset
from mindspore.train import Callback, Loss, Metric, Model
from mindspore.train.metrics import get_metrics, names

from workers.data import DataError, array_of, batches_of, require_labelled
from workers.entry_point import blaming, load_entry_point
from workers.errors import InputError
from workers.spec import WorkerSpec
from workers.tensors import to_arrays

Deliver = Callable[[tuple[np.ndarray, ...]], None]


class MetricsError(InputError):
    """The metrics or the loss of the job are none that MindSpore can evaluate with."""

    def __init__(self, what: str, fix: str) -> None:
        super().__init__(what, fix)
        self.what, self.fix = what, fix

    def __str__(self) -> str:
        return f"{self.what}; {self.fix}"


class Evaluation:
    """What ``Model.eval`` needs beside a network and data."""

    def __init__(self, spec: WorkerSpec) -> None:
        """Call the user's factories.

        Raises:
            MetricsError: they gave no loss or no metrics.
        """
        self._source, self._batch_size = spec.predict_data, spec.batch_size
        self._sink_mode = spec.dataset_sink_mode
        self._loss = _make_loss(spec)
        self._metrics = _make_metrics(spec)
        if self._loss is None and any(isinstance(m, Loss) for m in self._metrics.values()):
            raise MetricsError("the metric loss needs a loss", "add loss: net.py:make_loss")

    def run(self, network: nn.Cell, data: Any, deliver: Deliver) -> dict[str, Any]:
        """Return the value of each metric over all batches.

        Args:
            data: a mindspore.dataset or an iterable, of (input, label) batches.
            deliver: is given outputs and labels of each batch, as it comes.
        """
        if self._loss is None:
            evaluate = _WithoutLoss(network)
            model = Model(network, metrics=self._metrics, eval_network=evaluate)
        else:
            model = Model(network, self._loss, metrics=self._metrics)
        batches = _Batches(data, self._source, self._batch_size)
        try:
            values = model.eval(batches.dataset, [_Watch(deliver)], self._sink_mode)
        except RuntimeError as error:  # MindSpore's own words for what the user's code raised
            raise batches.failure or error from error
        return {name: _plain(value) for name, value in values.items()}


class _WithoutLoss(nn.Cell):  # type: ignore[misc]
    """An evaluation network for metrics that need no loss; it returns no loss."""

    def __init__(self, network: nn.Cell) -> None:
        super().__init__(auto_prefix=False)
        self.network = network

    def construct(self, data: Any, label: Any) -> Any:
        return self.network(data), label


class Passed(nn.Cell):  # type: ignore[misc]
    """In place of a network whose outputs are there already."""

    def construct(self, outputs: Any) -> Any:
        return outputs


class _Watch(Callback):  # type: ignore[misc]
    """Hands over what the evaluation network returned: [loss,] outputs, label."""

    def __init__(self, deliver: Deliver) -> None:
        super().__init__()
        self._deliver = deliver

    def on_eval_step_end(self, run_context: Any) -> None:
        returned = run_context.original_args().net_outputs
        self._deliver(to_arrays(returned[-2:]))


class _Batches:
    """The user's data as a MindSpore dataset, and what went wrong while it was read."""

    def __init__(self, data: Any, source: str, batch_size: int | None) -> None:
        self._data, self._source, self._batch_size = data, source, batch_size
        self.failure: Exception | None = None
        if isinstance(data, Dataset):
            _require_two_columns(data, source)
            self.dataset = data
        else:
            columns = ["data", "label"]
            self.dataset = GeneratorDataset(self._read, columns, shuffle=False)
            self.dataset.dataset_size = -1  # unknown: to count, MindSpore would read all twice

    def _read(self) -> Iterator[tuple[np.ndarray, ...]]:
        try:
            batches = batches_of(self._data, self._source, self._batch_size)
            for number, batch in enumerate(batches):
                require_labelled(batch, self._source, f"batch {number}")
                yield tuple(map(array_of, batch))
        except Exception as error:
            self.failure = error
            raise


def _require_two_columns(dataset: Dataset, source: str) -> None:
    names = dataset.get_col_names()
    if len(names) != 2:
        found = f"made of the columns {', '.join(names)}, where an evaluation needs (input, label)"
        raise DataError(source, "its dataset", found)


def _make_loss(spec: WorkerSpec) -> nn.Cell | None:
    if spec.loss is None:
        return None
    with blaming(spec.loss):
        loss = load_entry_point(spec.loss, spec.search_path)()
    if not isinstance(loss, nn.Cell):
        found = f"{spec.loss}: it returned something of type {type(loss).__name__}"
        raise MetricsError(found, "name a function that returns a loss, or a class of mindspore.nn")
    return loss


def _make_metrics(spec: WorkerSpec) -> Mapping[str, Metric]:
    """Return the metrics by the names that the user or MindSpore gives them."""
    found: dict[str, Any] = {}
    for name in spec.metrics:
        if ":" not in name:
            given: Any = {name}
        else:
            with blaming(name):
                given = load_entry_point(name, spec.search_path)()
            if isinstance(given, Metric):
                given = {type(given).__name__: given}
        found |= _known(name, given)
    return found


def _known(source: str, given: Any) -> dict[str, Any]:
    failure: Exception | None = None
    try:
        if found := get_metrics(given):
            return dict(found)
    except (TypeError, KeyError, ValueError) as error:
        failure = error
    fix = "a function that returns a dict of mindspore.train.Metric objects"
    if source in names():  # it takes arguments, as the k of topk
        what = f"metrics: MindSpore cannot make {source!r} from its name: {failure}"
        raise MetricsError(what, f"name {fix}") from failure
    what = f"metrics: {source!r} gives no metrics that MindSpore has"
    fix = f"name some of {', '.join(sorted(names()))}, or {fix}"
    raise MetricsError(what, fix) from failure


def _plain(value: Any) -> Any:
    """Return a metric's value as numbers, and lists and mappings of them."""
    if isinstance(value, mindspore.Tensor):
        value = value.asnumpy()
    if isinstance(value, (np.ndarray, np.generic)):
        return value.tolist()
    if isinstance(value, Mapping):
        return {str(name): _plain(item) for name, item in value.items()}
    if isinstance(value, Iterable) and not isinstance(value, str):
        return [_plain(item) for item in value]
    return value
