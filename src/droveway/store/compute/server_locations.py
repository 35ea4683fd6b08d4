"""What the API shows of the hosts that servers are on, and of the servers that are on hosts."""

from __future__ import annotations

from collections.abc import Iterable

import msgspec
from sqlalchemy import Text, and_, select, type_coerce

from droveway.store.engine.in_list import in_list
from droveway.store.engine.prepared import Prepared
from droveway.store.engine.transaction import Tx
from droveway.store.schema import hosts, instances, services

_PLACES = Prepared(
    select(hosts.c.name, hosts.c.zone, hosts.c.resources, services.c.is_up, services.c.disabled, services.c.forced_down)
    .join(services, and_(services.c.host == hosts.c.name, services.c.binary == "nova-compute"))
    .where(in_list(hosts.c.name, "names"))
)
_SERVERS = Prepared(
    select(instances.c.host, instances.c.number, instances.c.id)
    .where(in_list(instances.c.host, "names"), instances.c.deleted.is_(False))
    .order_by(instances.c.number)
)


class ServerLocation(msgspec.Struct, frozen=True):
    """A host as a server's body tells of it."""

    zone: str
    hypervisor_hostname: str
    status: str  # Nova's host_status: UP, DOWN, MAINTENANCE


def of(tx: Tx, names: Iterable[str | None]) -> dict[str, ServerLocation]:
    """The places by host name; a host that has no compute service is left out."""
    found: dict[str, ServerLocation] = {}
    for row in tx.execute(_PLACES, {"names": {name for name in names if name is not None}}):
        status = "DOWN" if not row.is_up or row.forced_down else "MAINTENANCE" if row.disabled else "UP"
        found[row.name] = ServerLocation(row.zone, (row.resources or {}).get("hypervisor_hostname") or row.name, status)
    return found


def servers_on(tx: Tx, names: Iterable[str]) -> dict[str, list[dict[str, str]]]:
    """Name and id of the servers of each host."""
    found: dict[str, list[dict[str, str]]] = {name: [] for name in names}
    for row in tx.execute(_SERVERS, {"names": found}):
        found[row.host].append({"name": instance_name(row.number), "uuid": row.id})
    return found


def has_zone(tx: Tx, zone: str) -> bool:
    """Whether any host is in it."""
    return tx.execute(select(hosts.c.name).where(hosts.c.zone == zone).limit(1)).first() is not None


def named(tx: Tx, host: str | None, node: str | None) -> str | None:
    """The host with that name and that name of its hypervisor, each when given; None when there is none."""
    query = select(hosts.c.name, hosts.c.resources).order_by(hosts.c.id)
    if host is not None:
        query = query.where(hosts.c.name == host)
    else:  # reports are long: only those are read that hold the name
        report = type_coerce(hosts.c.resources, Text)
        query = query.where((hosts.c.name == node) | report.contains(f'"{node}"', autoescape=True))
    for row in tx.execute(query):
        if node in (None, (row.resources or {}).get("hypervisor_hostname") or row.name):
            return str(row.name)
    return None


def instance_name(number: int) -> str:
    """What the hypervisor calls the guest, in the API's words."""
    return f"instance-{number:08x}"


def host_names(tx: Tx) -> list[str]:
    return list(tx.execute(select(hosts.c.name)).scalars())


def host_names_by_number(tx: Tx) -> dict[int, str]:
    """Of all, by their numbers."""
    return {number: name for number, name in tx.execute(select(hosts.c.id, hosts.c.name))}  # noqa: C416


def zones_of_hosts(tx: Tx) -> list[str]:
    """In which there are hosts."""
    return sorted(tx.execute(select(hosts.c.zone).distinct()).scalars())
