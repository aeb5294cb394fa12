"""Read and write strategy files: the layout of every parameter, as MindSpore's compiler saved it.

A file is protobuf or JSON. A folder with the files of all pipeline stages, or the one file that
MindSpore merged from them, gives the layouts of all stages.
"""

from __future__ import annotations

import glob
import json
import os
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from workers.resharding import strategy_proto
from workers.resharding.atomic import atomic_file
from workers.resharding.errors import StrategyFileError
from workers.resharding.layout import Layout
from workers.resharding.layout_document import is_layout_document, parse_layouts
from workers.resharding.listing import listing_of
from workers.resharding.remote.address import Location, RemoteFile, is_url, shown
from workers.resharding.remote.cache import Cache
from workers.resharding.remote.mirror import open_mirror
from workers.resharding.strategy_document import parse_strategy, strategy_document
from workers.resharding.wire import WireError

_PLACE = "{rank}"
_MOST_NBYTES = 256 << 20  # of a file; a hundred bytes are enough for a parameter


class Layouts(dict[str, Layout]):
    """The layout of every parameter, and how many ranks there are."""

    rank_count = 0  # of all stages, also of one that only shares parameters with lower ones


def read_strategy_file(
    path: str | Path, cache: Cache | None = None, all_stages: bool = True
) -> Layouts:
    """Return the layout of every parameter that a strategy file, or a folder of them, names.

    A parameter that several stages hold under different layouts gets that of the lowest stage:
    each stage holds all of it.

    Args:
        path: a file of one stage, a merged file, or a folder with a file for each stage or for
            each rank (the ranks of a stage all save the same), or a pattern with ``{rank}``.
            Layouts in JSON as ``layout_document`` knows them are read, too. Or a URL of these.
        cache: where remote files are kept; in the home folder if not given.
        all_stages: refuse files of which those of another stage are missing.

    Raises:
        StrategyFileError: a file cannot be read, files contradict each other, or the file of a
            stage is missing.
    """
    found: dict[str, dict[int, Layout]] = defaultdict(dict)  # parameter -> stage -> layout
    for file in _remote_files(str(path), cache) if is_url(path) else _files(Path(path)):
        for parameter, layout in parse_document(_read_document(file), str(file)):
            known = found[parameter].setdefault(layout.stages[0], layout)
            if known != layout:
                raise StrategyFileError(
                    str(file),
                    f"{parameter} of stage {layout.stages[0]} has the layout ({layout}) here and"
                    f" ({known}) in another file of the folder; keep the files of one run only",
                )
    _check_stages(str(path), found, all_stages)
    layouts = Layouts({name: _join_stages(by_stage) for name, by_stage in found.items()})
    stages = 1 + max(stage for by_stage in found.values() for stage in by_stage)
    layouts.rank_count = stages * next(iter(layouts.values())).stage_size
    return layouts


def write_strategy_file(path: str | Path, layouts: Mapping[str, Layout]) -> None:
    """Write layouts as MindSpore does: protobuf, merged if any stage but 0 holds a parameter."""
    with atomic_file(Path(path)) as file:
        file.write(strategy_proto.encode(strategy_document(layouts)))


def _files(path: Path) -> list[Path]:
    if _PLACE in str(path):
        files = sorted(map(Path, glob.glob(str(path).replace(_PLACE, "*"))))
        if not files:
            raise StrategyFileError(str(path), "there is no such file of any rank")
        return files
    if not path.is_dir():
        return [path]
    files = sorted(file for file in path.iterdir() if file.suffix in (".ckpt", ".json"))
    if not files:
        raise StrategyFileError(str(path), "the folder holds no .ckpt or .json files")
    return files


def _remote_files(url: str, cache: Cache | None) -> Sequence[Location]:
    listing = listing_of(url, cache)
    patterns = [url.replace(_PLACE, "*")]
    if _PLACE not in url and listing.is_folder(url):
        patterns = [os.path.join(url, name) for name in ("*.ckpt", "*.json")]
    found = [path for pattern in patterns for path in listing.matches(pattern)]
    if not found:
        raise StrategyFileError(shown(url), "there is no such file, and no folder with such files")
    return [listing.location(path) for path in found]


def _read_document(file: Location) -> Mapping[str, Any]:
    if isinstance(file, RemoteFile):
        with open_mirror(file) as mirror:
            _check_size(str(file), mirror.size)
            return decode_strategy(mirror[0 : mirror.size], str(file))
    try:
        _check_size(str(file), file.stat().st_size)
        return decode_strategy(file.read_bytes(), str(file))
    except OSError as error:
        raise StrategyFileError(str(file), f"it cannot be read: {error.strerror}") from error


def _check_size(source: str, nbytes: int) -> None:
    if nbytes > _MOST_NBYTES:
        raise StrategyFileError(source, "it is too large; is it a checkpoint?")


def decode_strategy(content: bytes, source: str) -> Mapping[str, Any]:
    """Return the document in the bytes of a file; ``source`` names it in errors.

    Raises:
        StrategyFileError: the bytes are neither protobuf nor JSON.
    """
    try:
        if content.lstrip().startswith(b"{"):
            document = json.loads(content)
        else:
            document = strategy_proto.decode(content)
    except (ValueError, RecursionError, WireError) as error:
        raise StrategyFileError(
            source, f"it is no strategy, in protobuf or JSON ({error}); is it a checkpoint?"
        ) from error
    if not isinstance(document, dict):
        raise StrategyFileError(source, "it holds no object")
    return document


def parse_document(document: Mapping[str, Any], source: str) -> Iterator[tuple[str, Layout]]:
    """Yield each parameter of a decoded file of any kind, with its layout in one stage."""
    parse = parse_layouts if is_layout_document(document) else parse_strategy
    return parse(document, source)


def _check_stages(
    source: str, found: Mapping[str, Mapping[int, Layout]], all_stages: bool
) -> None:
    """Refuse a set of layouts in which a stage is missing, or has another number of ranks."""
    present = {stage for by_stage in found.values() for stage in by_stage}
    missing = sorted(set(range(len(present))) - present)
    if missing and all_stages:
        raise StrategyFileError(
            source,
            f"it is for stages {sorted(present)} of a pipeline, stages {missing} are missing; name"
            " a folder with the files of all stages, or the file merged from them",
        )
    if not found:
        raise StrategyFileError(source, "it holds no layouts")
    layouts = [(name, layout) for name, stages in found.items() for layout in stages.values()]
    size = layouts[0][1].stage_size
    for name, layout in layouts:
        if layout.stage_size != size:
            raise StrategyFileError(
                source, f"{name} ({layout}) is not for {size} ranks, like the others"
            )


def _join_stages(by_stage: Mapping[int, Layout]) -> Layout:
    lowest = by_stage[min(by_stage)]
    alike = tuple(
        stage
        for stage, layout in sorted(by_stage.items())
        if layout is lowest or replace(layout, stages=lowest.stages) == lowest
    )
    return lowest if lowest.stages == alike else replace(lowest, stages=alike)
