"""Hand arrays to MindSpore and take results back, without a copy where that can be."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import mindspore
import numpy as np
from mindspore.common.np_dtype import bfloat16

from workers.nested import is_tensor, leaves, tensors_in

_BFLOAT16 = "BFloat16"


def to_tensor(array: np.ndarray, dtype: str = "") -> mindspore.Tensor:
    """Return a tensor on the memory of an array.

    Args:
        dtype: MindSpore's name of what the array holds; it matters for ``BFloat16``, which
            comes as uint16.
    """
    if dtype == _BFLOAT16 and array.dtype == np.uint16:
        array = array.view(bfloat16)
    if not (array.flags.c_contiguous and array.flags.writeable):
        array = array.copy()
    return mindspore.Tensor.from_numpy(array)


def as_arguments(batch: Sequence[Any]) -> tuple[Any, ...]:
    """Return inputs as MindSpore wants them: it takes what a container holds as constants.

    ``mutable`` says that it changes from batch to batch.
    """
    return tuple(
        mindspore.mutable(value) if not is_tensor(value) and tensors_in(value) else value
        for value in batch
    )


def to_arrays(result: Any) -> tuple[np.ndarray, ...]:
    """Return what a network returned, laid flat, as arrays that any NumPy knows.

    NumPy has no bfloat16: such a tensor becomes float32, which holds the same values.
    """
    return tuple(_to_array(value) for value in leaves(result) if value is not None)


def _to_array(result: Any) -> np.ndarray:
    if not isinstance(result, mindspore.Tensor):
        return np.asarray(result)  # a number that the network computed when it was compiled
    array: np.ndarray = result.asnumpy()
    return array.astype(np.float32) if str(result.dtype) == _BFLOAT16 else array
