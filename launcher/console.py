"""Decide how text reaches a stream: as wide as a terminal, or unbroken lines for a file."""

from __future__ import annotations

from typing import TextIO

from rich.console import Console

UNBROKEN = 1000  # columns; the lines of a log are not wrapped


def make_console(stream: TextIO, plain: bool = False) -> Console:
    """Return a console that writes to ``stream`` what it is given, without reading markup in it.

    Args:
        plain: take even a terminal for a file: the one that mpirun gives its processes is none.
    """
    if plain or not stream.isatty():
        return Console(
            file=stream,
            width=UNBROKEN,
            force_terminal=False,
            markup=False,
            highlight=False,
            emoji=False,
        )
    return Console(file=stream, markup=False, highlight=False, emoji=False)
