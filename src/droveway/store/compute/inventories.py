"""What Placement shows, read from the rows that hold it: hosts as providers, instances and migrations as consumers.

Nothing is stored for it, so it cannot differ from what placing itself sees.
"""

from __future__ import annotations

from collections.abc import Iterator
from enum import StrEnum
from typing import Any

import msgspec
from sqlalchemy import Select, Text, literal, select, type_coerce

from droveway.domain.placement import HeldCell, HostFacts
from droveway.store.engine.in_list import in_list
from droveway.store.engine.prepared import Prepared
from droveway.store.engine.transaction import Tx
from droveway.store.fleet import hosts
from droveway.store.schema import aggregate_hosts, aggregates, instances, migrations
from droveway.store.schema import hosts as host_rows


class Provider(msgspec.Struct, frozen=True):
    """A host that has reported. `name`: what its hypervisor calls itself; `aggregates`: their uuids."""

    name: str
    facts: HostFacts
    aggregates: tuple[str, ...] = ()


class ConsumerType(StrEnum):
    INSTANCE = "INSTANCE"
    MIGRATION = "MIGRATION"


class HostClaims(msgspec.Struct, frozen=True):
    """What one consumer holds on one host. `pinned`: how many of its vcpus have a CPU of their own. `generation` rises
    with what happens to the consumer."""

    consumer: str
    type: ConsumerType
    host: str
    project_id: str
    user_id: str
    vcpus: int
    ram_mb: int
    disk_gb: int
    pinned: int = 0
    generation: int = 0


class _Called(msgspec.Struct, frozen=True):
    hypervisor_hostname: str = ""


_called = msgspec.json.Decoder(_Called).decode
_cells = msgspec.json.Decoder(tuple[HeldCell, ...]).decode
_AT_ONCE = 250  # hosts

_REPORTED = select(host_rows.c.name).where(host_rows.c.resources.is_not(None)).order_by(host_rows.c.id)
_RESOURCES_OF = Prepared(
    select(host_rows.c.name, type_coerce(host_rows.c.resources, Text)).where(in_list(host_rows.c.name, "names"))
)
_MEMBERS = Prepared(
    select(aggregate_hosts.c.host, aggregates.c.uuid)
    .join(aggregates)
    .where(in_list(aggregate_hosts.c.host, "names"))
    .order_by(aggregates.c.id)
)
_i, _m = instances.c, migrations.c
_INSTANCES = (
    select(
        _i.id,
        _i.host,
        _i.project_id,
        _i.user_id,
        _i.vcpus,
        _i.ram_mb,
        _i.disk_gb,
        type_coerce(_i.held_cells, Text),
        _i.fence,
    )
    .where(_i.deleted.is_(False), _i.host.is_not(None))
    .order_by(_i.number)
)
_MIGRATIONS = (
    select(
        _m.uuid,
        _m.destination,
        _i.project_id,
        _i.user_id,
        _m.vcpus,
        _m.ram_mb,
        _m.disk_gb,
        type_coerce(_m.held_cells, Text),
        literal(0),
    )
    .join(instances, _i.id == _m.instance_id)
    .where(_m.holds_claim.is_(True), _m.destination.is_not(None))
    .order_by(_m.id)
)


# -- providers --------------------------------------------------------------------------------------------------------
def providers(tx: Tx) -> Iterator[Provider]:
    """Every host that has reported, in the order of their ids; read some at a time, so that a loop beside it goes on
    and the caller that has enough may stop."""
    names = list(tx.execute(_REPORTED).scalars())
    for start in range(0, len(names), _AT_ONCE):
        yield from _providers(tx, names[start : start + _AT_ONCE])


def provider(tx: Tx, uuid: str) -> Provider | None:
    """One of them; None when there is none with that uuid."""
    name = tx.execute(_REPORTED.where(host_rows.c.uuid == uuid)).scalar()
    return None if name is None else next(_providers(tx, [name]), None)


def _providers(tx: Tx, names: list[str]) -> Iterator[Provider]:
    called = {
        name: _called(text).hypervisor_hostname or name for name, text in tx.execute(_RESOURCES_OF, {"names": names})
    }
    members: dict[str, list[str]] = {}
    for host, uuid in tx.execute(_MEMBERS, {"names": names}):
        members.setdefault(host, []).append(uuid)
    for facts in hosts.facts_of(tx, names):
        yield Provider(called[facts.name], facts, tuple(members.get(facts.name, ())))


def place_of(tx: Tx, host: str) -> tuple[str, int] | None:
    """Uuid and generation of the provider that this host is."""
    row = tx.execute(select(host_rows.c.uuid, host_rows.c.claims).where(host_rows.c.name == host)).first()
    return None if row is None else (row.uuid, row.claims)


# -- consumers --------------------------------------------------------------------------------------------------------
def on_host(tx: Tx, host: str) -> list[HostClaims]:
    """Everything that is held there."""
    return list(_holdings(tx, _INSTANCES.where(_i.host == host), _MIGRATIONS.where(_m.destination == host)))


def of_consumer(tx: Tx, consumer: str) -> HostClaims | None:
    """What that instance or that migration holds; None when it holds nothing."""
    found = _holdings(tx, _INSTANCES.where(_i.id == consumer), _MIGRATIONS.where(_m.uuid == consumer))
    return next(found, None)


def of_project(tx: Tx, project_id: str, user_id: str | None = None) -> list[HostClaims]:
    """What a project holds everywhere, or one user of it."""
    guests = _INSTANCES.where(_i.project_id == project_id)
    moves = _MIGRATIONS.where(_i.project_id == project_id)
    if user_id is not None:
        guests, moves = guests.where(_i.user_id == user_id), moves.where(_i.user_id == user_id)
    return list(_holdings(tx, guests, moves))


def _holdings(tx: Tx, guests: Select[Any], moves: Select[Any]) -> Iterator[HostClaims]:
    for kind, query in ((ConsumerType.INSTANCE, guests), (ConsumerType.MIGRATION, moves)):
        for consumer, host, project_id, user_id, vcpus, ram_mb, disk_gb, cells, generation in tx.execute(query):
            pinned = 0 if cells is None else sum(len(held.cpus) for held in _cells(cells))
            yield HostClaims(consumer, kind, host, project_id, user_id, vcpus, ram_mb, disk_gb, pinned, generation)
