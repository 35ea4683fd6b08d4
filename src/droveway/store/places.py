"""What the API shows of the hosts that servers are on, and of the servers that are on hosts; and a project's use."""

from __future__ import annotations

from collections.abc import Iterable

import msgspec
from sqlalchemy import and_, func, select

from droveway.store.schema import hosts, instances, services
from droveway.store.transaction import Tx

_MANY = 500  # names in one IN (...)


class Place(msgspec.Struct, frozen=True):
    """A host as a server's body tells of it."""

    zone: str
    hypervisor_hostname: str
    status: str  # Nova's host_status: UP, DOWN, MAINTENANCE


class Usage(msgspec.Struct, frozen=True):
    instances: int
    vcpus: int
    ram_mb: int


def of(tx: Tx, names: Iterable[str | None]) -> dict[str, Place]:
    """The places by host name; a host that has no compute service is left out."""
    wanted = sorted({name for name in names if name is not None})
    found: dict[str, Place] = {}
    for start in range(0, len(wanted), _MANY):
        query = (
            select(hosts.c.name, hosts.c.zone, hosts.c.resources, services.c.is_up, services.c.disabled,
                   services.c.forced_down)
            .join(services, and_(services.c.host == hosts.c.name, services.c.binary == "nova-compute"))
            .where(hosts.c.name.in_(wanted[start : start + _MANY]))
        )  # fmt: skip
        for row in tx.execute(query):
            status = "DOWN" if not row.is_up or row.forced_down else "MAINTENANCE" if row.disabled else "UP"
            found[row.name] = Place(row.zone, (row.resources or {}).get("hypervisor_hostname") or row.name, status)
    return found


def servers_on(tx: Tx, names: Iterable[str]) -> dict[str, list[dict[str, str]]]:
    """Name and id of the servers of each host."""
    found: dict[str, list[dict[str, str]]] = {name: [] for name in names}
    wanted = sorted(found)
    for start in range(0, len(wanted), _MANY):
        query = (
            select(instances.c.host, instances.c.number, instances.c.id)
            .where(instances.c.host.in_(wanted[start : start + _MANY]), instances.c.deleted.is_(False))
            .order_by(instances.c.number)
        )
        for row in tx.execute(query):
            found[row.host].append({"name": instance_name(row.number), "uuid": row.id})
    return found


def instance_name(number: int) -> str:
    """What the hypervisor calls the guest, in the API's words."""
    return f"instance-{number:08x}"


def usage(tx: Tx, project_id: str) -> Usage:
    """What a project's servers hold."""
    c = instances.c
    query = select(func.count(), func.coalesce(func.sum(c.vcpus), 0), func.coalesce(func.sum(c.ram_mb), 0))
    count, vcpus, ram_mb = tx.execute(query.where(c.project_id == project_id, c.deleted.is_(False))).one()
    return Usage(count, int(vcpus), int(ram_mb))
