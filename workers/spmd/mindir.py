"""Decode the attributes of MindIR protobuf messages into plain Python values and arrays.

The numbers are those of ``AttributeProto.AttributeType`` and ``TensorProto.DataType`` in
``mindspore.train.mind_ir_pb2`` (MindSpore 2.10.0); they are the same list as far as both go.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from workers.spmd.errors import CaptureError

_DTYPES: dict[int, tuple[str, str]] = {  # number -> MindSpore's name, NumPy's
    1: ("Float32", "f4"),
    2: ("UInt8", "u1"),
    3: ("Int8", "i1"),
    4: ("UInt16", "u2"),
    5: ("Int16", "i2"),
    6: ("Int32", "i4"),
    7: ("Int64", "i8"),
    9: ("Bool", "?"),
    10: ("Float16", "f2"),
    11: ("Float64", "f8"),
    12: ("UInt32", "u4"),
    13: ("UInt64", "u8"),
    14: ("Complex64", "c8"),
    15: ("Complex128", "c16"),
    16: ("BFloat16", "u2"),
    17: ("Float64", "f8"),
}
_INTEGERS = {2, 3, 4, 5, 6, 7, 12, 13}
_STRING, _BOOL, _TENSOR, _TENSORS, _TUPLE, _LIST, _DICT = 8, 9, 17, 19, 20, 21, 22
_UMONAD, _IOMONAD, _NONE, _TYPE_NULL = 23, 24, 25, 36

MONAD = object()  # what orders side effects; no operator reads it


def decode_dtype(number: int) -> str:
    """Return MindSpore's name of an element type: 1 is ``Float32``."""
    if number not in _DTYPES:
        raise CaptureError(f"the network has tensors of the unknown MindIR data type {number}")
    return _DTYPES[number][0]


def decode_attribute(attribute: Any) -> Any:
    """Return the value of an ``AttributeProto``: number, string, tuple, dict, array or None."""
    kind = attribute.type
    if kind in (_TUPLE, _LIST):
        return tuple(decode_attribute(v) for v in attribute.values)
    if kind == _DICT:
        return {v.name: decode_attribute(v.values[0]) for v in attribute.values}
    if kind in (_TENSOR, _TENSORS):
        arrays = tuple(_decode_tensor(t) for t in attribute.tensors)
        return arrays[0] if len(arrays) == 1 else arrays
    if kind == _BOOL:
        return bool(attribute.ints[0] if attribute.ints else attribute.i)
    if kind in _INTEGERS:
        return int(attribute.ints[0] if attribute.ints else attribute.i)
    if kind == 1:
        return float(attribute.floats[0] if attribute.floats else attribute.f)
    if kind == 11:
        return float(attribute.doubles[0] if attribute.doubles else attribute.d)
    if kind == _STRING:
        return (attribute.strings[0] if attribute.strings else attribute.s).decode()
    if kind in (_UMONAD, _IOMONAD):
        return MONAD
    if kind in (_NONE, _TYPE_NULL):
        return None
    return attribute  # a kind that no operator of a straight-line graph reads


def _decode_tensor(tensor: Any) -> np.ndarray:
    decode_dtype(tensor.data_type)
    dtype = np.dtype(_DTYPES[tensor.data_type][1]).newbyteorder("<")
    return np.frombuffer(tensor.raw_data, dtype).reshape(tuple(tensor.dims))
