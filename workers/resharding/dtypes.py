"""Translate between MindSpore's names of element types and NumPy's types."""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType
from typing import Any

import numpy as np

# What holds one element in memory. NumPy has no bfloat16 and no int4: their bits travel in an
# integer of the same size, and nothing here computes with them.
STORAGE: Mapping[str, np.dtype[Any]] = MappingProxyType(
    {
        "Bool": np.dtype(np.bool_),
        "Int4": np.dtype(np.int8),
        "Int8": np.dtype(np.int8),
        "Int16": np.dtype("<i2"),
        "Int32": np.dtype("<i4"),
        "Int64": np.dtype("<i8"),
        "UInt8": np.dtype(np.uint8),
        "UInt16": np.dtype("<u2"),
        "UInt32": np.dtype("<u4"),
        "UInt64": np.dtype("<u8"),
        "BFloat16": np.dtype("<u2"),
        "Float16": np.dtype("<f2"),
        "Float32": np.dtype("<f4"),
        "Float64": np.dtype("<f8"),
        "Complex64": np.dtype("<c8"),
        "Complex128": np.dtype("<c16"),
    }
)
_NAMES = {dtype: name for name, dtype in STORAGE.items() if name not in ("Int4", "BFloat16")}


def name_of(dtype: np.dtype[Any]) -> str:
    """Return MindSpore's name of a NumPy type.

    Raises:
        ValueError: MindSpore has no such type.
    """
    if dtype not in _NAMES:
        raise ValueError(f"MindSpore has no name for elements of NumPy's {dtype}")
    return _NAMES[dtype]
