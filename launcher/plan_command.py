"""Carry out ``launcher plan``: print where ranks would run and what they would read."""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from rich.console import Console
from rich.table import Table

from launcher import layout_report
from launcher.console import make_console
from launcher.engines.choice import Planned
from launcher.errors import JobError
from launcher.job import Job
from launcher.layout_command import collective_table, parameter_table
from launcher.prepare import Prepared, prepare, read_rank_table
from launcher.text import checks, initial, listed, plural, ranges, size
from workers.resharding.errors import ReshardError
from workers.resharding.plan import LoadPlan, plan_rank
from workers.resharding.remote.address import shown
from workers.resharding.wanted import Wanted
from workers.spec import WorkerSpec

MINDSPORE_BYTES = 230 << 20  # of each process, measured; simulated ranks share most of it


@dataclass(frozen=True)
class Plan:
    """All that is known of a run before it starts."""

    prepared: Prepared
    report: Mapping[str, Any]  # parameters, operators and collectives of the predict program
    loads: Sequence[LoadPlan]  # one for each rank; empty without a checkpoint
    slice_bytes: Mapping[int, int]  # that each rank holds of the parameters

    @property
    def specs(self) -> Sequence[WorkerSpec]:
        return self.prepared.placement.specs

    @property
    def initial(self) -> list[str]:
        """The parameters that no file has: they keep the initial values of the network."""
        read = {part.name for load in self.loads for part in load.slices}
        return [name for name in self.report["parameters"] if self.loads and name not in read]

    @property
    def unused(self) -> list[str]:
        """What the files hold beyond the parameters of the network: counters, optimizer state."""
        checkpoint = self.prepared.checkpoint
        saved = checkpoint.parameters if checkpoint is not None else ()
        return [name for name in saved if name not in self.report["parameters"]]

    def to_dict(self, environment: Mapping[str, str]) -> dict[str, Any]:
        """Return the plan as JSON values; ``environment`` is the one that ranks differ from."""
        ranks = [
            {
                "rank": spec.rank,
                "server_id": spec.server_id,
                "device_id": spec.device_id,
                "device": spec.device,
                "threads": spec.threads,
                "cores": list(spec.cores),
                "memory": {
                    "slices": self.slice_bytes[spec.rank],
                    "activations": self.report["activation_bytes"],
                    "mindspore": MINDSPORE_BYTES,
                },
                "environment": changes(environment, spec.environment),
                "log": str(self.prepared.folder.log(spec.rank)),
            }
            for spec in self.specs
        ]
        for rank, load in zip(ranks, self.loads, strict=False):
            rank["bytes_to_read"] = load.bytes_to_read
            rank["reads"] = {str(path): count for path, count in load.bytes_by_file.items()}
        prepared = self.prepared
        return {
            "headline": prepared.placement.headline,
            "output": str(prepared.folder.root),
            "strategy": shown(prepared.job.strategy) if prepared.job.strategy else None,
            "checked": dict(prepared.checked),
            "warnings": list(prepared.warnings),
            "initial_parameters": self.initial,
            "unused_tensors": self.unused,
            "ranks": ranks,
            **self.report,
        }


def execute(job: Job, as_json: bool = False) -> int:
    """Print the plan; only a child that works out the layouts is started, no rank."""
    plan = plan_job(job)
    if as_json:
        print(json.dumps(plan.to_dict(os.environ), indent=2))
    else:
        _print(plan, os.environ, make_console(sys.stdout))
    return 0


def plan_job(job: Job) -> Plan:
    """Return what a run of ``job`` would do.

    Raises:
        LauncherError: it cannot start.
    """
    table = read_rank_table(job)
    return make_plan(prepare(job, table, Planned(job, table, os.environ)), os.environ)


def make_plan(prepared: Prepared, environment: Mapping[str, str]) -> Plan:
    """Return what a run of the same job would do.

    Raises:
        LauncherError: the network cannot be used, or the checkpoint is not one of it.
    """
    specs = prepared.placement.specs
    cores = len(specs) * specs[0].threads  # the ranks' own share: none of them runs now
    report = layout_report.ask(prepared.job, len(specs), environment, cores)
    wanted = layout_report.predict_parameters(report)
    loads = _plan_loads(prepared, wanted, len(specs))
    held = {
        spec.rank: sum(part.slice_bytes for part in wanted.values() if part.layout.holds(spec.rank))
        for spec in specs
    }
    return Plan(prepared, report, loads, held)


def changes(parent: Mapping[str, str], child: Mapping[str, str]) -> dict[str, str | None]:
    """Return what a rank's environment has that the parent's has not; None: it was dropped."""
    dropped: dict[str, str | None] = {name: None for name in sorted(parent.keys() - child.keys())}
    return dropped | {name: value for name, value in child.items() if parent.get(name) != value}


def _plan_loads(
    prepared: Prepared, wanted: Mapping[str, Wanted], rank_size: int
) -> tuple[LoadPlan, ...]:
    checkpoint, allowed = prepared.checkpoint, prepared.job.allow_missing
    if checkpoint is None:
        return ()
    try:
        loads = [
            plan_rank(checkpoint, _of_rank(wanted, rank), rank, allowed)
            for rank in range(rank_size)
        ]
    except ReshardError as error:
        raise JobError.about("checkpoint", str(error)) from error
    if prepared.placement.specs[0].shares_weights:
        loads[1:] = [replace(load, slices=()) for load in loads[1:]]  # rank 0 reads for all
    return tuple(loads)


def _of_rank(wanted: Mapping[str, Wanted], rank: int) -> dict[str, Wanted]:
    """Return the parameters of a rank's pipeline stage."""
    return {name: want for name, want in wanted.items() if want.layout.holds(rank)}


def _print(plan: Plan, environment: Mapping[str, str], console: Console) -> None:
    console.print(plan.prepared.placement.headline)
    console.print(_rank_summary(plan))
    console.print("\nenvironment of the ranks, where it differs from this one")
    _print_lines(_environment(plan, environment), console)
    if plan.report["parameters"]:
        console.print()
        console.print(parameter_table(plan.report["parameters"]))
    if plan.report["collectives"]:
        console.print()
        console.print(collective_table(plan.report["collectives"]))
    console.print()
    _print_lines(_program(plan.report), console)
    _print_lines(_files(plan), console)


def _print_lines(lines: Iterator[str], console: Console) -> None:
    for line in lines:
        console.print(line, soft_wrap=True)


def _rank_summary(plan: Plan) -> Table:
    table = Table(box=None, pad_edge=False)
    for title in ("rank", "device", "threads", "cores", "reads", "memory", "log"):
        table.add_column(title, overflow="fold")
    reads = [
        f"{size(load.bytes_to_read)} of {plural(len(load.bytes_by_file), 'file')}"
        for load in plan.loads
    ] or ["nothing"] * len(plan.specs)
    activations = plan.report["activation_bytes"]
    for spec, read in zip(plan.specs, reads, strict=True):
        place, log = f"{spec.server_id}:{spec.device_id}", str(plan.prepared.folder.log(spec.rank))
        cores = ranges(spec.cores) if spec.cores else "all"
        memory = size(plan.slice_bytes[spec.rank] + activations)
        table.add_row(str(spec.rank), place, str(spec.threads), cores, read, memory, log)
    return table


def _environment(plan: Plan, environment: Mapping[str, str]) -> Iterator[str]:
    """Yield what all ranks share once, then what each has of its own."""
    differences = [changes(environment, spec.environment) for spec in plan.specs]
    common = dict(set.intersection(*(set(difference.items()) for difference in differences)))
    yield from (f"  all     {_assignment(name, common[name])}" for name in sorted(common))
    for spec, difference in zip(plan.specs, differences, strict=True):
        own = (_assignment(*item) for item in difference.items() if item[0] not in common)
        if text := " ".join(own):
            yield f"  rank {spec.rank:<2} {text}"


def _assignment(name: str, value: str | None) -> str:
    return f"{name} (dropped)" if value is None else f"{name}={value}"


def _program(report: Mapping[str, Any]) -> Iterator[str]:
    """Yield what the ranks tell each other, and which operators have no parallel form."""
    kinds = [entry["op"] for entry in report["collectives"]]
    counted = ", ".join(f"{kinds.count(kind)} {kind}" for kind in dict.fromkeys(kinds))
    moved = size(sum(entry["bytes"] for entry in report["collectives"]))
    operators = plural(len(report["operators"]), "operator")
    stages = len({operator["stage"] for operator in report["operators"]})
    to = "the first rank of each stage" if stages > 1 else "rank 0"
    yield f"program     {operators}; collectives: {counted or 'none'}; {moved} to {to} a batch"
    for operator in report["operators"]:
        if not operator["sliced"]:
            yield f"            {operator['op']} ({operator['scope']}) runs on gathered inputs"


def _files(plan: Plan) -> Iterator[str]:
    """Yield what is read and where the result goes."""
    prepared, job = plan.prepared, plan.prepared.job
    if prepared.checkpoint is not None:
        indices = prepared.checkpoint.files.values()
        held = size(sum(index.identity.size for index in indices))
        yield f"checkpoint  {shown(job.checkpoint or '')} ({plural(len(indices), 'file')}, {held})"
        yield f"strategy    {shown(job.strategy or 'none: whole tensors')}"
    for warning in prepared.warnings:
        yield f"warning     {warning}"
    if prepared.checked:
        yield f"checked     {checks(prepared.checked)}"
    if prepared.placement.hosts > 1:
        yield "hosts       taken to be like this one: their own launchers see what they have"
    yield f"memory      slices and activations; MindSpore itself takes {size(MINDSPORE_BYTES)} more"
    if plan.initial:
        yield f"initial     {initial(plan.initial)}"
    if plan.unused:
        yield f"not read    {plural(len(plan.unused), 'tensor')}: {listed(plan.unused)}"
    yield f"result      {prepared.folder.root}"
