"""Describe the flags that say where parts of remote files are kept."""

from __future__ import annotations

import argparse
from typing import Any


def add_cache_flags(group: argparse.ArgumentParser | Any) -> None:
    """Add the flags to a parser, or to a group of one."""
    group.add_argument(
        "--cache", metavar="DIR", help="where parts of remote files are kept (LAUNCHER_CACHE)"
    )
    group.add_argument(
        "--cache-size", metavar="SIZE", help="how much of them at most (default: 64G)"
    )
