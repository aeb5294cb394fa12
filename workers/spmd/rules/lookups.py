"""Label the operators that pick elements by index."""

from __future__ import annotations

from dataclasses import replace

from workers.spmd.graph import Node, shape_of
from workers.spmd.rules.labels import first, labels, without
from workers.spmd.signature import Signature, Splits

_MANUAL = "manual_split cuts its table into unequal slices, which no checkpoint can be loaded into"


def gather(node: Node) -> Signature:
    """``r.., i.. -> i..``: rows of a table. Split rows are looked up masked, then summed."""
    table, indices = (shape_of(x) for x in node.tensors[:2])
    batch_dims = node.argument(3, 0)
    axis = node.argument(2, 0) % len(table)
    columns = labels("c", len(table))
    index = columns[:batch_dims] + labels("i", len(indices))[batch_dims:]
    output = (*columns[:axis], *index[batch_dims:], *columns[axis + 1 :])
    by_rows = axis == 0 and not batch_dims
    found = Signature(
        (columns, index),
        (output,),
        batch=first(index),
        order=(*index, *(c for c in columns if c not in index)),
        check=lambda splits, devices: _refused(splits, devices, columns, index, axis),
    )
    if node.attributes.get("manual_split"):
        return replace(found, check=lambda splits, devices: _MANUAL)
    if by_rows:
        rows = columns[0]
        return replace(found, looked_up=rows, scatter=rows, scatters_unasked=True)
    return replace(found, computed=(without(columns, {columns[axis]}), index))


def embedding(node: Node) -> Signature:
    """``i.., rc -> i..c``; here MindSpore generates a split of the table's rows."""
    indices = shape_of(node.tensors[0])
    index = labels("i", len(indices))
    return Signature(
        (index, ("r", "c")),
        ((*index, "c"),),
        batch="r",
        whole=frozenset((*index, "c")),
        looked_up="r",
        scatter="r",
        scatters_unasked=True,
    )


def _refused(
    splits: Splits, devices: int, table: tuple[str, ...], index: tuple[str, ...], axis: int
) -> str | None:
    """Say what MindSpore holds against a split of the axis that indices pick from."""
    rows = splits[table[axis]]
    others = [splits[x] for d, x in enumerate(table) if d != axis]
    used = rows * max([*others, 1])
    if table[axis] in index or rows == 1:
        return None
    if not index:
        return "scalar indices cannot pick from a dimension that is split"
    if len(table) > 2:
        return "a dimension that indices pick from cannot be split in a table of 3 dimensions"
    if axis == 0 and any(splits[x] > 1 for x in index):
        first_only = all(splits[x] == 1 for x in index[1:]) and len(index) <= 2
        full = rows * splits[index[0]] == devices and max([*others, 1]) == 1
        if not (first_only and full):
            return (
                "the table is split by rows, so the indices cannot be split too, unless rows and"
                " dimension 0 of the indices together use all devices and nothing else is split"
            )
    elif axis == 0 and max([*others, 1]) > 1 and used != devices:
        return "a table split by rows and by columns must use all devices"
    elif axis == 1:
        if any(splits[x] > 1 for x in index):
            return "the indices cannot be split if the dimension they pick from is"
        if used != devices:
            return "a split of the dimension that indices pick from must use all devices"
    return None


def gather_nd(node: Node) -> Signature:
    """The table stays whole, and so does the last dimension of the indices: the coordinates."""
    table, indices = (shape_of(x) for x in node.tensors[:2])
    columns, index = labels("c", len(table)), labels("i", len(indices))
    output = (*index[:-1], *(None for _ in node.outputs[0].shape[len(index) - 1 :]))
    return Signature(
        (columns, index),
        (output,),
        batch=index[0] if len(index) > 1 else None,
        order=(*index, *columns),
        whole=frozenset((*columns, index[-1])),
    )


def gather_d(node: Node) -> Signature:
    """Elements along ``dim``, which stays whole; both tensors are cut alike."""
    shape, picked = (shape_of(x) for x in node.tensors[:2])
    dims = labels("d", len(shape))
    axis = node.argument(1, 0) % len(shape)
    uneven = {x for x, a, b in zip(dims, shape, picked, strict=True) if a != b}
    local = without(dims, uneven | {dims[axis]})
    return Signature(
        (dims, dims),
        (local,),
        first(dims) if axis else None,
        whole=frozenset({dims[axis]}),
        computed=(local, local),
    )
