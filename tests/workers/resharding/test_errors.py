from __future__ import annotations

import inspect
import pickle

import pytest

from workers.resharding import errors
from workers.resharding.errors import ReshardError
from workers.resharding.remote import errors as remote_errors

KINDS = [
    kind
    for kind in (*vars(errors).values(), *vars(remote_errors).values())
    if inspect.isclass(kind) and issubclass(kind, ReshardError) and kind is not ReshardError
]
EXAMPLES = {"str": "w/rank_1", "int": 3, "int | None": 3, "tuple": ("4", "5")}


@pytest.mark.parametrize("kind", KINDS)
def test_an_error_keeps_its_parts_in_another_process(kind: type[ReshardError]) -> None:
    parameters = list(inspect.signature(kind.__init__).parameters.values())[1:]
    annotations = [str(parameter.annotation).split("[")[0] for parameter in parameters]
    parts = [EXAMPLES[name] for name in annotations]
    error = kind(*parts)
    copy = pickle.loads(pickle.dumps(error))
    assert type(copy) is kind
    assert (copy.args, str(copy)) == (error.args, str(error))
    assert vars(copy) == vars(error)


def test_all_mean_bad_input_but_for_a_disk_that_fails() -> None:
    assert {kind for kind in KINDS if kind.exit_code != 2} == {errors.TargetWriteError}
    assert errors.TargetWriteError.exit_code == 1


def test_a_long_list_is_cut_in_the_message() -> None:
    names = tuple(f"layer{number}.w" for number in range(100))
    error = errors.MissingParametersError(names, "c.ckpt", ())
    assert "layer6.w, layer7.w and 92 more; to go on without, --allow-missing" in str(error)
    assert len(error.names) == 100
