"""Decide how text reaches a stream: as wide as a terminal, or unbroken lines for a file."""

from __future__ import annotations

from typing import TextIO

from rich.console import Console

UNBROKEN = 1000  # columns; the lines of a log are not wrapped


def make_console(stream: TextIO) -> Console:
    """Return a console that writes to ``stream`` what it is given, without reading markup in it."""
    width = None if stream.isatty() else UNBROKEN
    return Console(file=stream, width=width, markup=False, highlight=False, emoji=False)
