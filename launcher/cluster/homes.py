"""Decide which process starts which rank. Pure."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from launcher.site import Site


@dataclass(frozen=True)
class Member:
    """Who has come: by what ZeroMQ knows it, and by what people do."""

    identity: bytes
    name: str
    site: Site


def choose_homes(members: Iterable[Member], own: Site | None, are_forks: bool) -> dict[int, Member]:
    """Return the member that starts each rank; ranks that have none are the head's own.

    Args:
        own: where the head's own ranks start, if it has any.
        are_forks: ranks of one host are forks of one process, so that they import MindSpore
            once. Else each is started by its own slot.
    """
    homes = {rank: member for member in members for rank in member.site.ranks}
    if not are_forks:
        return homes
    leaders: dict[str, Member] = {}
    for _, member in sorted(homes.items(), key=lambda item: item[0]):
        leaders.setdefault(member.site.host.machine, member)
    return {
        rank: leaders[member.site.host.machine]
        for rank, member in homes.items()
        if own is None or member.site.host.machine != own.host.machine
    }
