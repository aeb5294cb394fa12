"""Decide whether a host has the devices that its ranks need, and by which numbers. Pure."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from launcher.errors import HostError
from launcher.job import Job
from launcher.own_server import find_own_server
from launcher.rank_table.table import Device, RankTable
from launcher.site import Site
from launcher.visible_devices import own_numbers, visible_devices

_INSTEAD = "run the job on simulated ranks with --device cpu"


def kind_of_device(job: Job) -> str:
    """Return what people call the devices of a job."""
    return "GPU" if job.device == "gpu" else "Ascend"


def numbers_of_devices(
    job: Job, devices: Sequence[Device], given: RankTable | None, site: Site
) -> Mapping[int, int]:
    """Return the numbers by which processes of a site ask for its ranks' devices.

    Raises:
        HostError: a device is not there, or hidden, or could not be found by the others.
    """
    kind, host = kind_of_device(job), site.host
    here = host.gpu_devices if kind == "GPU" else host.ascend_devices
    name = "this host" if not site.is_remote else f"host {host.name}"
    if not here:
        raise HostError(f"no {kind} device is visible on {name}", _INSTEAD)
    servers = dict.fromkeys(device.server_id for device in devices)
    if len(servers) > 1:
        what = f"the ranks of {len(servers)} servers ({', '.join(servers)}) cannot all run here"
        raise HostError(what, f"start the job on each of them with --engine hosts, or {_INSTEAD}")
    if given is None and len(devices) > 1 and kind == "Ascend":
        what = f"{len(devices)} Ascend ranks find each other through a rank table"
        raise HostError(what, f"add --rank-table FILE, or {_INSTEAD}")
    if given is not None and site.is_slot:
        _check_server(given, devices[0], site)
    for device in devices:
        if device.device_id not in here:
            seen = ", ".join(map(str, sorted(here)))
            what = f"rank {device.rank} needs {kind} device {device.device_id}, not on {name}"
            raise HostError(what, f"visible are {seen}; or {_INSTEAD}")
    if given is None or kind == "GPU":
        return {}
    numbers = (device.device_id for device in devices)
    return own_numbers(numbers, visible_devices(site.environment))


def _check_server(given: RankTable, device: Device, site: Site) -> None:
    """See that a slot is on the host that the rank table names for its rank."""
    own = find_own_server(given, site.host, site.environment)
    if own != device.server_id:
        what = f"rank {device.rank} is on {device.server_id} in the rank table"
        what += f", but mpirun or srun has started it on {own}"
        raise HostError(what, "order the hosts as in the table, or leave the table out")
