"""Hand arrays to MindSpore and take results back, without a copy where that can be."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import mindspore
import numpy as np
from mindspore.common.np_dtype import bfloat16

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


def to_arrays(result: Any) -> tuple[np.ndarray, ...]:
    """Return what a network returned, nested tuples laid flat, as arrays that any NumPy knows.

    NumPy has no bfloat16: such a tensor becomes float32, which holds the same values.
    """
    return tuple(_leaves(result))


def _leaves(result: Any) -> Iterator[np.ndarray]:
    if isinstance(result, (tuple, list)):
        for item in result:
            yield from _leaves(item)
    elif not isinstance(result, mindspore.Tensor):
        yield np.asarray(result)  # a number that the network computed when it was compiled
    elif str(result.dtype) == _BFLOAT16:
        yield result.asnumpy().astype(np.float32)
    else:
        yield result.asnumpy()
