"""Parse flags so that a misspelt one is told what it looks like."""

from __future__ import annotations

import argparse
import difflib
from collections.abc import Collection, Iterator, Sequence
from typing import Any


class FlagParser(argparse.ArgumentParser):
    """An ``ArgumentParser`` without abbreviations that suggests what it knows."""

    def __init__(self, **settings: Any) -> None:
        super().__init__(allow_abbrev=False, **settings)

    def parse_args(  # type: ignore[override]
        self, args: Sequence[str] | None = None, namespace: argparse.Namespace | None = None
    ) -> argparse.Namespace:
        found, unknown = self.parse_known_args(args, namespace)
        if unknown:
            flags = [word.partition("=")[0] for word in unknown if word.startswith("-")]
            known = list(self.flags())  # what is no flag may be the value of a misspelt one
            said = (f"{word}{did_you_mean(word, known)}" for word in flags or unknown)
            self.error(f"unknown: {', '.join(said)}")
        return found

    def flags(self) -> Iterator[str]:
        """Yield all flags, also those of subcommands."""
        yield from self._option_string_actions
        for parser in self.subcommands().values():
            yield from parser.flags()

    def subcommands(self) -> dict[str, FlagParser]:
        """Return the parsers of subcommands, by name."""
        return {
            name: parser
            for action in self._actions
            if isinstance(action, argparse._SubParsersAction)
            for name, parser in action.choices.items()
        }


def did_you_mean(word: str, known: Collection[str]) -> str:
    """Return what to put behind a word that nobody knows."""
    near = difflib.get_close_matches(word, known, n=1)
    return f" (did you mean {near[0]}?)" if near else ""
