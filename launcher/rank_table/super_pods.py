"""Check the super pods of version 1.2: which servers form one, and the ids of devices in it."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import groupby
from typing import Annotated, Any, NamedTuple

from pydantic import Field

from launcher.rank_table.finding import Finding, error, repeats, warning
from launcher.rank_table.values import RuleError, ServerId, Strict, check_digits

FROM_NPU_SMI = "see SDID of `npu-smi info -t spod-info -i ID -c CHIP`"


class _Member(Strict):
    server_id: ServerId


class SuperPod(Strict):
    """A super pod, and the servers in it."""

    super_pod_id: Annotated[str, Field(min_length=1, max_length=127)]
    server_list: Annotated[list[_Member], Field(min_length=1)]


class Member(NamedTuple):
    """A device of the table, as super pods see it."""

    path: str
    server_id: str
    super_device_id: Any  # as the document has it; None: it has none


def check(
    pods: Sequence[SuperPod] | None, members: Sequence[Member], root: str
) -> Iterator[Finding]:
    """Yield what is wrong with the super pods of a table of version 1.2.

    Args:
        pods: the table's ``super_pod_list``; None if it has none.
        members: the devices, in the order of the document.
        root: the path of what holds ``super_pod_list``.
    """
    yield from _id_findings(members)
    if pods is None:
        if any(member.super_device_id is not None for member in members):
            what = "missing, though devices have a super_device_id"
            fix = "add it; without it HCCL connects the servers as in version 1.0"
            yield warning(f"{root}.super_pod_list", what, fix)
        return
    yield from _pod_findings(pods, members, root)
    pod_of = {entry.server_id: pod.super_pod_id for pod in pods for entry in pod.server_list}
    yield from _uniqueness_findings(members, pod_of)
    yield from _order_findings(members, pod_of, root)


def _id_findings(members: Sequence[Member]) -> Iterator[Finding]:
    for path, _, given in members:
        where = f"{path}.super_device_id"
        if given is None:
            continue
        if not isinstance(given, str):
            hccl = "EI0017 json object property value of Name[super_device_id] is not string!"
            yield error(where, f"{given!r} is not a string", f'write "{given}"', hccl)
            continue
        try:
            check_digits(given)
        except RuleError as problem:
            hccl = f"EI0014 super_device_id[{given}] is invalid"
            yield error(where, problem.args[0], FROM_NPU_SMI, hccl)


def _pod_findings(
    pods: Sequence[SuperPod], members: Sequence[Member], root: str
) -> Iterator[Finding]:
    paths = [f"{root}.super_pod_list[{p}]" for p in range(len(pods))]
    names = ((path, pod.super_pod_id) for path, pod in zip(paths, pods, strict=True))
    for path, name, first in repeats(names):
        hccl = f"EI0014 [super_pod_id]:[{name}] is already exist"
        fix = "list all servers of a pod in one place"
        yield error(f"{path}.super_pod_id", f"{name!r} is also {first}", fix, hccl)
    named = [
        (f"{path}.server_list[{s}].server_id", entry.server_id)
        for path, pod in zip(paths, pods, strict=True)
        for s, entry in enumerate(pod.server_list)
    ]
    known = dict.fromkeys(member.server_id for member in members)
    for path, name in named:
        if name not in known:
            hccl = f"EI0014 server_id[{name}] is not found in server_list"
            yield error(path, f"{name!r} is not in server_list", "write it as there", hccl)
    for path, name, first in repeats(named):
        fix = "name each server in one super pod"
        hccl = "serverNum in super_pod_list and serverNum in server_list are inconsistent"
        yield error(path, f"{name!r} is also {first}", fix, hccl)
    in_pods = {name for _, name in named}
    for name in (name for name in known if name not in in_pods):
        what = f"{name!r} is in no super pod"
        hccl = "superDeviceId or superPod[] in rank is invalid"
        yield error(f"{root}.super_pod_list", what, "add the server to one", hccl)


def _uniqueness_findings(members: Sequence[Member], pod_of: dict[str, str]) -> Iterator[Finding]:
    for path, server_id, given in members:
        if given is None and server_id in pod_of:
            hccl = "superDeviceId[0xffffffff] in rank is invalid, the configuration may be missing"
            yield error(f"{path}.super_device_id", "missing", f"add it, {FROM_NPU_SMI}", hccl)
    places = (
        (f"{path}.super_device_id", (pod_of[server_id], int(given)))
        for path, server_id, given in members
        if server_id in pod_of and isinstance(given, str) and given.isascii() and given.isdigit()
    )
    for path, (pod, number), first in repeats(places):
        what = f"{number} of super pod {pod!r} is also {first}"
        hccl = f"superDeviceId[{number:#x}] in superPod[{pod}] is already exist"
        yield error(path, what, f"give each device of a pod its own, {FROM_NPU_SMI}", hccl)


def _order_findings(
    members: Sequence[Member], pod_of: dict[str, str], root: str
) -> Iterator[Finding]:
    runs = [pod for pod, _ in groupby(pod_of.get(member.server_id, "") for member in members)]
    for pod in dict.fromkeys(pod for pod in runs if runs.count(pod) > 1):
        what = f"the servers of super pod {pod!r} do not stand together"
        yield warning(f"{root}.server_list", what, "list the servers of one pod after another")
