"""Lists of instances: which, in which order, and the page of them."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

import msgspec
from sqlalchemy import ColumnElement, bindparam, false, func, select

from droveway.domain import name_pattern
from droveway.domain.model import VmState
from droveway.store.compute import instances as single
from droveway.store.engine import order, results, tags
from droveway.store.engine.prepared import Prepared, Rows
from droveway.store.engine.results import Unread
from droveway.store.engine.tags import Tags
from droveway.store.engine.transaction import Tx
from droveway.store.network.tables import port_addresses
from droveway.store.rows import InstanceRow
from droveway.store.schema import hosts, instances, server_ports

c = instances.c
SECOND_US = 1_000_000


class Filters(msgspec.Struct, frozen=True):
    """Which instances, in which order. `likes` are patterns of domain/name_pattern.py, by column; `deleted`: None is
    either."""

    project_id: str | None = None
    ids: tuple[str, ...] | None = None
    likes: tuple[tuple[str, str], ...] = ()
    equal: tuple[tuple[str, Any], ...] = ()  # (column, value)
    seconds: tuple[tuple[str, int], ...] = ()  # (column, the second that it lies in, in microseconds)
    vm_states: tuple[str, ...] | None = None
    task_states: tuple[str, ...] | None = None
    zone: str | None = None  # of its host; without one, the zone that it asked for
    addresses: tuple[tuple[int, str], ...] = ()  # (IP version, pattern of one of its fixed addresses)
    tags: Tags = Tags()
    deleted: bool | None = False
    changes_since_us: int | None = None
    changes_before_us: int | None = None
    sort: tuple[tuple[str, bool], ...] = (("created_at_us", True),)  # (column, descending), each column once
    marker: str | None = None
    limit: int = 1000


_ZONE = func.coalesce(
    select(hosts.c.zone).where(hosts.c.name == c.host).scalar_subquery(), c.zone
)  # that of its host; without one, the zone that it asked for


def _keys(sort: Iterable[tuple[str, bool]]) -> list[tuple[ColumnElement[Any], bool]]:
    """What to sort by, the id in the end: no two rows are alike."""
    by = dict(sort)
    by.setdefault("id", True)
    return [(_ZONE if name == "zone" else c[name], down) for name, down in by.items()]


_PLAIN = (
    select(instances)
    .where(c.deleted.is_(False), c.vm_state != VmState.SOFT_DELETED.value)
    .order_by(c.created_at_us.desc(), c.id.desc())
    .limit(bindparam("most"))
)
_ALL, _OF_PROJECT = Prepared(_PLAIN), Prepared(_PLAIN.where(c.project_id == bindparam("project")))


def is_plain(f: Filters) -> bool:
    """Whether it asks for the newest of a project, or of all: as most lists do."""
    return f == Filters(project_id=f.project_id, limit=f.limit)


def _plain(tx: Tx, f: Filters) -> Rows:
    plain = _ALL if f.project_id is None else _OF_PROJECT
    return tx.execute(plain, {"most": f.limit, "project": f.project_id})


def find_unread(tx: Tx, f: Filters) -> Unread[InstanceRow]:
    """The page of instances that a plain `f` asks for."""
    return results.unread(InstanceRow, _plain(tx, f))


def find(tx: Tx, f: Filters) -> list[InstanceRow]:
    """The page of instances that `f` asks for."""
    if is_plain(f):
        return results.every(InstanceRow, _plain(tx, f))
    query = select(instances).where(*_conditions(f))
    keys = _keys(f.sort)
    if f.marker is not None:
        single.get(tx, f.marker, f.project_id, deleted=True)
        last = tx.execute(select(*(column for column, _ in keys)).where(c.id == f.marker)).one()
        query = query.where(order.behind(keys, last))
    query = query.order_by(*order.clauses(keys))
    return results.every(InstanceRow, tx.execute(query.limit(f.limit)))


def _conditions(f: Filters) -> Sequence[ColumnElement[bool]]:
    found: list[ColumnElement[bool]] = []
    if f.deleted is not None:
        found.append(c.deleted.is_(f.deleted))
    if (
        f.deleted is False and f.vm_states is None and f.changes_since_us is None
    ):  # what may be restored is out of sight
        found.append(c.vm_state != VmState.SOFT_DELETED.value)
    if f.project_id is not None:
        found.append(c.project_id == f.project_id)
    for name, value in f.equal:
        found.append(c[name].is_(value) if isinstance(value, bool) else c[name] == value)
    for name, at_us in f.seconds:
        found += [c[name] >= at_us, c[name] < at_us + SECOND_US]
    for name, pattern in f.likes:
        found.append(c[name].ilike(pattern, escape=name_pattern.ESCAPE))
    if f.zone is not None:
        there = select(hosts.c.name).where(hosts.c.zone == f.zone)
        found.append(c.host.in_(there) | (c.host.is_(None) & (c.zone == f.zone)))
    for column, values in ((c.id, f.ids), (c.vm_state, f.vm_states), (c.task_state, f.task_states)):
        if values is not None:
            found.append(column.in_(values) if values else false())
    found += [c.id.in_(_addressed(version, pattern)) for version, pattern in f.addresses]
    found += tags.matching(c.tags, f.tags)
    if f.changes_since_us is not None:
        found.append(c.updated_at_us >= f.changes_since_us)
    if f.changes_before_us is not None:
        found.append(c.updated_at_us <= f.changes_before_us)
    return found


def _addressed(version: int, pattern: str) -> Any:
    """The servers that have such a fixed address."""
    address = port_addresses.c.address
    is_6 = address.contains(":")
    return (
        select(server_ports.c.instance_id)
        .join(port_addresses, port_addresses.c.port_id == server_ports.c.port_id)
        .where(address.ilike(pattern, escape=name_pattern.ESCAPE), is_6 if version == 6 else ~is_6)
    )
