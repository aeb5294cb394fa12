"""Decide which rank runs on which device: an HCCL rank table of any format, or simulated ranks.

The JSON keys are known here and nowhere else. HCCL writes numbers as strings, or in version 2.0 as
numbers; they become ints here and stay ints.
"""

from __future__ import annotations

from launcher.rank_table.finding import Finding
from launcher.rank_table.reading import Reading, parse_rank_table, read_rank_table
from launcher.rank_table.table import SIMULATED_SERVER, Device, RankTable
from launcher.rank_table.waiting import RankTableTimeout, load_rank_table

__all__ = [
    "SIMULATED_SERVER",
    "Device",
    "Finding",
    "RankTable",
    "RankTableTimeout",
    "Reading",
    "load_rank_table",
    "parse_rank_table",
    "read_rank_table",
]
