"""Write numbers, names and paths the way people read them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from signal import Signals

_LINE = 600  # characters; more would fill a screen


def seconds(value: float) -> str:
    """Return ``1.2 s``, or ``35 ms`` for what is short."""
    return f"{value:.1f} s" if value >= 0.0995 else f"{value * 1000:.0f} ms"


def duration(value: float) -> str:
    """Return seconds as ``40 s``, ``35 min`` or ``2.5 h``."""
    if value < 120:
        return f"{value:.0f} s"
    return f"{value / 60:.0f} min" if value < 5400 else f"{value / 3600:.1f} h"


def size(nbytes: float) -> str:
    """Return a number of bytes in the largest unit that it fills."""
    for unit in ("B", "KiB", "MiB", "GiB"):
        if nbytes < 1024:
            break
        nbytes /= 1024
    else:
        unit = "TiB"
    return f"{nbytes:.0f} {unit}" if unit == "B" or nbytes >= 99.95 else f"{nbytes:.1f} {unit}"


def fitting(line: str) -> str:
    """Return a line that others wrote as a terminal can take it: not endless, and only text."""
    cut = line if len(line) <= _LINE else f"{line[:_LINE]} ..."
    return visible(cut)


def shape(dims: tuple[int, ...]) -> str:
    """Return ``128 x 16``; a scalar has no dims."""
    return " x ".join(map(str, dims)) or "scalar"


def visible(text: str) -> str:
    """Return a text out of a file, with ``\\x1b`` and the like for what commands a terminal."""
    if text.isprintable():
        return text
    return "".join(c if c.isprintable() or c in "\n\t" else ascii(c)[1:-1] for c in text)


def short(path: Path) -> str:
    """Return a path from the working directory, if it lies inside."""
    here = Path.cwd()
    return str(path.relative_to(here) if path.is_relative_to(here) else path)


def checks(counts: Mapping[str, int]) -> str:
    """Return ``crc of 8 files, replicas of 96 slices``."""
    return ", ".join(f"{name} of {_compared(name, count)}" for name, count in counts.items())


def initial(names: Sequence[str]) -> str:
    """Return ``2 parameters that no file has: head.bias, head.weight``."""
    return f"{plural(len(names), 'parameter')} that no file has: {listed(names)}"


def listed(names: Sequence[str], most: int = 5) -> str:
    """Return the first names, and dots if there are more."""
    return ", ".join(map(visible, names[:most])) + (", ..." if len(names) > most else "")


def plural(count: int, noun: str) -> str:
    """Return ``1 rank``, ``8 ranks`` or ``2 batches``."""
    ending = "" if count == 1 else "es" if noun.endswith("ch") else "s"
    return f"{count} {noun}{ending}"


def name_ranks(ranks: Sequence[int]) -> str:
    """Return ``rank 3``, or ``ranks 0-2, 5`` for ``[0, 1, 2, 5]``."""
    return f"rank{'s' if len(ranks) > 1 else ''} {ranges(ranks)}"


def ranges(numbers: Sequence[int]) -> str:
    """Return ``0-2, 5`` for ``[0, 1, 2, 5]``."""
    parts: list[str] = []
    start = numbers[0]
    for number, following in zip(numbers, [*numbers[1:], -1]):
        if following != number + 1:
            parts.append(str(start) if start == number else f"{start}-{number}")
            start = following
    return ", ".join(parts)


def parse_ranges(text: str) -> list[range]:
    """Return the ranges of ``0-2,5``.

    Raises:
        ValueError: these are none.
    """
    spans = [piece.partition("-") for piece in text.split(",") if piece]
    return [range(int(low), int(high or low) + 1) for low, _, high in spans]


def signal_name(number: int) -> str:
    """Return ``SIGTERM``, or ``signal 40`` for one of those without a name."""
    try:
        return Signals(number).name
    except ValueError:
        return f"signal {number}"  # real-time signals have no names


def _compared(check: str, count: int) -> str:
    if count:
        return plural(count, "file" if check == "crc" else "slice")
    return "nothing: no file carries one" if check == "crc" else "nothing: no slice has one"
