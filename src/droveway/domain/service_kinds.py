"""Which kinds of services there are: the one table to which a new kind is a line. Pure.

A service is one process of one host. On its host it has a name: its binary, or `binary@backend` where a host may carry
several of a kind. In rows, and in the lists that clients read, the backend stands behind the host: the service
`cinder-volume@fast` of h1 is the binary `cinder-volume` on the host `h1@fast`.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from enum import StrEnum
from typing import NamedTuple

Address = tuple[str, str]  # a host, and the name of one of its services there
COMPUTE = "nova-compute"
SCRIPTS = "droveway-scripts"
NETWORK = "neutron-linuxbridge-agent"
VOLUME, BACKUP = "cinder-volume", "cinder-backup"
INTERNAL_ZONE = "internal"
BINARY_MAX, BACKEND_MAX = 64, 64
_BACKEND = re.compile(rf"[A-Za-z0-9._-]{{1,{BACKEND_MAX}}}")


class ListedBy(StrEnum):
    """Which API shows it (`os-services`, of the network API `agents`); `droveway service list` shows every one."""

    COMPUTE = "compute"
    VOLUME = "volume"
    NETWORK = "network"


class Kind(NamedTuple):
    """`topic`: what it is asked about. `on_hosts`: a process of a host; the others are shown by a control under its
    own name. `reports_guests`: it has a hypervisor, so its host has a row of its own; the others report their health.
    `zone`: where it stands; empty: in the zone of its host. `may_be_disabled`: control gives it work, and can keep
    that back."""

    topic: str
    listed_by: ListedBy = ListedBy.COMPUTE
    on_hosts: bool = True
    reports_guests: bool = False
    zone: str = INTERNAL_ZONE
    has_backends: bool = False
    may_be_disabled: bool = False


KINDS: dict[str, Kind] = {
    "nova-scheduler": Kind("scheduler", on_hosts=False),
    "nova-conductor": Kind("conductor", on_hosts=False),
    "cinder-scheduler": Kind("cinder-scheduler", listed_by=ListedBy.VOLUME, on_hosts=False, zone="nova"),
    COMPUTE: Kind("compute", reports_guests=True, zone="", may_be_disabled=True),
    SCRIPTS: Kind("scripts"),
    NETWORK: Kind("network", listed_by=ListedBy.NETWORK, zone=""),
    VOLUME: Kind("volume", listed_by=ListedBy.VOLUME, zone="", has_backends=True, may_be_disabled=True),
    BACKUP: Kind("backup", listed_by=ListedBy.VOLUME, zone="", may_be_disabled=True),
}
OF_CONTROL = tuple(binary for binary, kind in KINDS.items() if not kind.on_hosts)


def split(service: str) -> tuple[str, str]:
    """Its binary and its backend, which is empty where it has none."""
    binary, _, backend = service.partition("@")
    return binary, backend


def name_error(service: str) -> str:
    """Why no process of a host can bear that name; empty when one can."""
    binary, at, backend = service.partition("@")
    kind = KINDS.get(binary)
    if kind is None or not kind.on_hosts:
        known = ", ".join(name for name, one in KINDS.items() if one.on_hosts)
        return f"{service[: BINARY_MAX + BACKEND_MAX]!r} is no service of a host; there is {known}"
    if at and not kind.has_backends:
        return f"{service[: BINARY_MAX + BACKEND_MAX]!r} names a backend, and {binary} has none"
    if kind.has_backends and _BACKEND.fullmatch(backend) is None:
        return (
            f"{service[: BINARY_MAX + BACKEND_MAX]!r} must be {binary}@BACKEND, with 1 to {BACKEND_MAX} of the "
            "characters a-z A-Z 0-9 . - _"
        )
    return ""


def problems(services: Sequence[str]) -> list[str]:
    """Every sentence that is wrong with what one host is to carry."""
    if not services:
        return ["services is empty: a host carries at least one"]
    found = [f"services: {reason}" for reason in map(name_error, services) if reason]
    return found + [
        f"services: {service} stands there {services.count(service)} times; two of one host have different names"
        for service in dict.fromkeys(services)
        if services.count(service) > 1
    ]


def row_of(host: str, service: str) -> tuple[str, str]:
    """The host and the binary of its row."""
    binary, backend = split(service)
    return (f"{host}@{backend}" if backend else host), binary


def address_of(row_host: str, binary: str) -> tuple[str, str]:
    """The host of a row, and the service's name there: where the bus finds it. No host's name holds an @."""
    host, _, backend = row_host.partition("@")
    return host, (f"{binary}@{backend}" if backend else binary)
