"""Find out what a file is, and describe it in JSON values: a checkpoint, strategy or rank table."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from launcher.errors import JobError, LauncherError, Problem
from launcher.rank_table.reading import parse_rank_table
from launcher.rank_table.waiting import read_text
from workers.resharding.checkpoint import open_checkpoint
from workers.resharding.checkpoint_file import read_index
from workers.resharding.errors import DecryptionError, EncryptedCheckpointError, ReshardError
from workers.resharding.layout import Layout
from workers.resharding.picture import draw
from workers.resharding.remote.address import Location, RemoteFile, is_url, shown
from workers.resharding.remote.cache import Cache
from workers.resharding.remote.errors import NoSuchFileError
from workers.resharding.saved import SlicedCheckpoint
from workers.resharding.strategy_file import read_strategy_file


def inspect(
    file: str, strategy: str | None, key: bytes | None, cache: Cache | None = None
) -> dict[str, Any]:
    """Return what a file holds; its ``kind`` says which of the forms below it has.

    Args:
        file: with a strategy, or where there are several files, what ``open_checkpoint`` takes.
        key: opens encrypted files.
        cache: where parts of remote files are kept.

    Raises:
        ReshardError, JobError: it is none of them, or damaged.
    """
    if is_url(file):
        return _inspect_remote(file, strategy, key, cache or Cache.of({}))
    path = Path(file)
    if strategy is not None or not path.exists() or (path.is_dir() and not _is_strategy(path)):
        return _slices(open_checkpoint(file, strategy, key))
    readers: list[Callable[[], dict[str, Any]]] = [
        lambda: _checkpoint(path, key),
        lambda: _strategy(path),
    ]
    if path.is_dir():
        readers = readers[1:]
    elif not path.is_file():
        readers = readers[:1]  # which refuses it, and does not wait for what may never come
    else:
        _refuse_array(path)
    if path.is_file() and _is_json(path):
        readers = [lambda: _strategy(path), lambda: _rank_table(path)]
    return _first(readers)


def _inspect_remote(
    url: str, strategy: str | None, key: bytes | None, cache: Cache
) -> dict[str, Any]:
    readers: list[Callable[[], dict[str, Any]]] = [
        lambda: _checkpoint(RemoteFile.parse(url, cache), key),
        lambda: _strategy(url, cache),
        lambda: _slices(open_checkpoint(url, strategy, key, cache)),
    ]
    several = strategy is not None or any(sign in url for sign in "{*")
    return _first(readers[2:] if several else readers)


def _first(readers: Sequence[Callable[[], dict[str, Any]]]) -> dict[str, Any]:
    """Return what the first reader returns that can read the file."""
    failures = []
    for reader in readers:
        try:
            return reader()
        except (EncryptedCheckpointError, DecryptionError, NoSuchFileError):
            raise  # it is a checkpoint, or nothing
        except (ReshardError, LauncherError) as error:
            failures.append(str(error))
    raise JobError("", [Problem("inspect", failure) for failure in failures])


def _refuse_array(path: Path) -> None:
    with path.open("rb") as file:
        if file.read(6) == b"\x93NUMPY":
            what = f"{path} is an array, no checkpoint, strategy or rank table"
            raise JobError.about("inspect", what, "read it with numpy.load")


def _is_strategy(path: Path) -> bool:
    try:
        return bool(read_strategy_file(path, all_stages=False))
    except ReshardError:
        return False


def _is_json(path: Path) -> bool:
    with path.open("rb") as file:
        return file.read(64).lstrip().startswith(b"{")


def _rank_table(path: Path) -> dict[str, Any]:
    table = parse_rank_table(read_text(path), str(path))
    return {
        "kind": "rank table",
        "path": str(path),
        "devices": [
            {"rank": d.rank, "server_id": d.server_id, "device_id": d.device_id, "ip": d.device_ip}
            for d in table.devices
        ],
    }


def _strategy(path: Path | str, cache: Cache | None = None) -> dict[str, Any]:
    layouts = read_strategy_file(path, cache, all_stages=False)
    ranks = sorted({rank for layout in layouts.values() for rank in layout.ranks})
    parameters = {name: _layout(layout) for name, layout in layouts.items()}
    return {
        "kind": "strategy",
        "path": shown(str(path)),
        "ranks": len(ranks),
        "parameters": parameters,
    }


def _layout(layout: Layout) -> dict[str, Any]:
    return {
        "device_matrix": list(layout.device_matrix),
        "tensor_map": layout.nested_tensor_map,
        "optimizer_shard": layout.optimizer_shard,
        "stages": list(layout.stages),
        "field_size": layout.field_size,
        "split_sizes": list(layout.split_sizes),
        "ranks": list(layout.ranks),
        "picture": list(draw(layout)),
    }


def _checkpoint(path: Location, key: bytes | None) -> dict[str, Any]:
    index = read_index(path, key)
    return {
        "kind": "checkpoint",
        "path": str(path),
        "format": index.format,
        "bytes": index.identity.size,
        "crc32": index.crc32,
        "cipher": index.cipher.mode if index.cipher else None,
        "parameters": {
            name: {
                "dtype": tensor.dtype,
                "shape": list(tensor.dims),
                "bytes": tensor.nbytes,
                "chunks": len(tensor.chunks),
            }
            for name, tensor in index.tensors.items()
        },
    }


def _slices(checkpoint: SlicedCheckpoint) -> dict[str, Any]:
    files = checkpoint.files.values()
    return {
        "kind": "sliced checkpoint",
        "files": {str(rank): str(index.path) for rank, index in checkpoint.files.items()},
        "bytes": sum(index.identity.size for index in files),
        "parameters": {
            name: {
                "dtype": saved.dtype,
                "full_shape": list(saved.full_shape),
                "holders": list(saved.holders),
                "in_strategy": saved.in_strategy,
                "unnamed_slices": name in checkpoint.unnamed_slices,
                **_layout(saved.layout),
            }
            for name, saved in checkpoint.parameters.items()
        },
    }
