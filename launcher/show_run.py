"""Show a run while it goes on, and how it ended."""

from __future__ import annotations

import json
import sys
from collections.abc import Sequence

from launcher import summary
from launcher.console import make_console
from launcher.launch import start
from launcher.outcome import Restarted, Resumed
from launcher.prepare import Prepared
from launcher.progress import Progress
from launcher.tee import Tee
from workers.protocol import Message


def show_run(prepared: Prepared, teed: Sequence[int], as_json: bool, plain: bool) -> int:
    """Run the ranks of a job that is under way; return the exit code of the whole.

    Args:
        teed: ranks whose logs are shown.
        as_json: print nothing but the result, as JSON, on standard output.
        plain: take no terminal for one.
    """
    console = make_console(sys.stderr if as_json else sys.stdout, plain)
    console.print(prepared.placement.headline)
    logs = {rank: prepared.folder.log(rank) for rank in teed}
    with Progress(console, prepared.placement.specs) as progress, Tee(logs, progress.say) as tee:

        def watch(news: Message | Restarted | Resumed) -> None:
            progress.watch(news)
            tee.watch(news)

        result = start(prepared, watch)
    if result.ok:
        console.print(summary.rank_summary(result))
        for line in summary.success(result):
            console.print(line, soft_wrap=True)
    else:
        print(*summary.failure(result), sep="\n", file=sys.stderr)
    for warning in result.warnings:
        print(f"warning: {warning}", file=sys.stderr)
    if as_json:
        print(json.dumps(result.to_dict(), indent=2))
    return result.exit_code
