"""Tensors in nested inputs: found, changed, and told apart."""

from __future__ import annotations

import numpy as np

from workers.data import arrays_of
from workers.nested import kind_of, leaves, tensors_in, with_tensors
from workers.protocol import checksum

A, B, C = np.zeros((2, 3), np.float32), np.ones(4), np.arange(2)


def test_tensors_come_in_the_order_of_the_inputs() -> None:
    nested = (A, [1, {"b": B, "a": (None, C)}])
    assert [id(x) for x in tensors_in(nested)] == [id(A), id(B), id(C)]
    assert [x for x in leaves(nested) if not isinstance(x, np.ndarray)] == [1, None]


def test_a_change_of_the_tensors_keeps_everything_else() -> None:
    assert with_tensors(({"a": [B]}, "x", (C,)), len) == ({"a": [4]}, "x", (2,))


def test_what_a_compiled_network_depends_on_makes_another_kind() -> None:
    kinds = {kind_of(x) for x in ((A,), (A, 1), (A, 2), ([A],), (B,), (A.astype("f8"),), (A, "1"))}
    assert len(kinds) == 7
    assert kind_of((A, 1)) == kind_of((A + 1, 1))


def test_ranks_with_other_plain_values_do_not_predict_from_the_same() -> None:
    one, other = (checksum(*arrays_of((A, flag))) for flag in (True, False))
    assert one != other
