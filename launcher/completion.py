"""Carry out ``launcher completion``: print the script that lets bash complete command lines.

It is made from the parsers themselves, and runs no Python when somebody presses the tab key.
"""

from __future__ import annotations

import argparse
import importlib
from collections.abc import Iterable, Iterator, Mapping

from launcher import cli
from launcher.flags import FlagParser

_SCRIPT = """\
# completion of bash for launcher; put this into ~/.bashrc:
#   source <(launcher completion bash)
_launcher() {{
    local word=${{COMP_WORDS[COMP_CWORD]}} before=${{COMP_WORDS[COMP_CWORD - 1]}}
    local command=${{COMP_WORDS[1]}} words=
    case $before in
{values}
    esac
    if [[ -z $words && $word == -* ]]; then
        case $command in
{flags}
        esac
    elif [[ -z $words && $COMP_CWORD == 1 ]]; then
        words="{commands}"
    elif [[ -z $words && $COMP_CWORD == 2 ]]; then
        case $command in
{actions}
        esac
    fi
    mapfile -t COMPREPLY < <(compgen -W "$words" -- "$word")
}}
complete -o default -F _launcher launcher
"""


def add_flags(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("shell", choices=("bash",), help="source <(launcher completion bash)")


def execute(arguments: argparse.Namespace, as_json: bool) -> int:
    parsers = {name: cli.make_parser(name) for name in cli.COMMANDS}
    for name, (module, _) in cli.FILE_COMMANDS.items():
        add = importlib.import_module(module).add_flags
        parsers[name] = cli.make_file_parser(name, add)
    print(bash_script(parsers, default="run"), end="")
    return 0


def bash_script(parsers: Mapping[str, FlagParser], default: str) -> str:
    """Return the script; what it does not complete, bash takes for the name of a file.

    Args:
        parsers: of each command, by its name.
        default: the command that need not be named.
    """
    order = [*(name for name in parsers if name != default), default]  # it matches any word
    patterns = {name: name if name != default else "*" for name in order}
    flags = {patterns[name]: sorted(set(parsers[name].flags())) for name in order}
    values = dict(choice for parser in parsers.values() for choice in _choices(parser))
    actions = {patterns[name]: parsers[name].subcommands() for name in order}
    return _SCRIPT.format(
        values="\n".join(_case(values)),
        flags="\n".join(_case(flags)),
        commands=" ".join(parsers),
        actions="\n".join(_case({name: words for name, words in actions.items() if words})),
    )


def _choices(parser: FlagParser) -> Iterator[tuple[str, list[str]]]:
    """Yield the flags that take one of a few words, and the words."""
    for action in parser._actions:
        if action.choices and not isinstance(action, argparse._SubParsersAction):
            for flag in action.option_strings:
                yield flag, [str(choice) for choice in action.choices]


def _case(words: Mapping[str, Iterable[str]]) -> Iterator[str]:
    for pattern, found in words.items():
        yield f'        {pattern}) words="{" ".join(found)}" ;;'
