"""Name the keys of version 1.0 and 1.2, and the type of each."""

from __future__ import annotations

from typing import Annotated, Any, NamedTuple

from pydantic import Field

from launcher.rank_table.super_pods import SuperPod
from launcher.rank_table.values import Address, Addresses, Digits, Port, ServerId, Strict


class ListedDevice(Strict):
    """A device; "" stands for a key that the document leaves out."""

    rank_id: Digits
    device_id: Digits
    device_ip: Addresses = ""
    backup_device_ip: Addresses = ""
    device_port: Port = ""
    device_vnic_port: Port = ""
    backup_device_port: Port = ""
    host_port: Port = ""
    net_position: str = ""
    net_protocol: str = ""
    super_device_id: Any = None  # version 1.2 alone reads it; checked there


class ListedServer(Strict):
    """A server and its devices. Of its addresses, HCCL reads ``host_ip`` alone."""

    server_id: ServerId
    device: Annotated[list[ListedDevice], Field(min_length=1)]
    host_ip: Address = ""
    server_ip: Any = None
    pod_ip: Any = None
    container_ip: Any = None


class ServerTable(Strict):
    """A document of version 1.0."""

    server_count: Digits = ""
    server_list: Annotated[list[ListedServer], Field(min_length=1)]
    cluster_list: Any = None


class PodTable(ServerTable):
    """A document of version 1.2, which may say which servers form a super pod."""

    super_pod_list: Annotated[list[SuperPod], Field(min_length=1)] | None = None


class PlacedDevice(NamedTuple):
    """A device, and the paths at which the document has it and its server."""

    path: str
    server_path: str
    server: ListedServer
    device: ListedDevice
