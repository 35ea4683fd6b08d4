"""Host aggregates. A host's zone follows from its aggregates in the same transaction; a host that is in none with a
zone is in the default one."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from enum import StrEnum

from sqlalchemy import bindparam, delete, insert, select, update

from droveway.domain.faults import BadRequest, Conflict, NotFound
from droveway.domain.model import Subject, SubjectKind
from droveway.store.engine import results
from droveway.store.engine.in_list import in_list
from droveway.store.engine.prepared import Prepared
from droveway.store.engine.transaction import Tx
from droveway.store.fleet import hosts
from droveway.store.rows import Aggregate, AggregateRow
from droveway.store.schema import aggregate_hosts, aggregates, instances, migrations, services
from droveway.store.schema import hosts as host_rows
from droveway.store.work import counters, events

ZONE = "availability_zone"
DEFAULT_ZONE = "nova"
METADATA_MAX = 128

_ALL = select(aggregates).order_by(aggregates.c.id)
_MEMBERS = select(aggregate_hosts).order_by(aggregate_hosts.c.host)
_NAMED = Prepared(_ALL.where(aggregates.c.name == bindparam("of")))
_ONE = Prepared(_ALL.where(aggregates.c.id == bindparam("of")))
_COMPUTE_ON = Prepared(
    select(services.c.id).where(services.c.host == bindparam("of"), services.c.binary == hosts.COMPUTE)
)


class _AggregateAction(StrEnum):
    """How the refusal of an act begins."""

    ADD = "add host to aggregate"
    REMOVE = "remove host from aggregate"
    UPDATE = "update aggregate"
    SET = "update metadata of aggregate"


def _refusal(doing: _AggregateAction, number: int, reason: str) -> str:
    return f"Cannot {doing} {number}. Reason: {reason}."


# -- reading ----------------------------------------------------------------------------------------------------------
def list_all(tx: Tx) -> list[Aggregate]:
    """Every aggregate with the names of its hosts."""
    members: dict[int, list[str]] = {}
    for row in tx.execute(_MEMBERS):
        members.setdefault(row.aggregate_id, []).append(row.host)
    return [{**row, "hosts": members.get(row["id"], [])} for row in results.one_by_one(AggregateRow, tx.execute(_ALL))]


def get(tx: Tx, number: int) -> Aggregate:
    """One aggregate with the names of its hosts. Raises NotFound."""
    row = results.first(AggregateRow, tx.execute(_ONE, {"of": number}))
    if row is None:
        raise NotFound(f"Aggregate {number} could not be found.")
    members = tx.execute(_MEMBERS.where(aggregate_hosts.c.aggregate_id == number))
    return {**row, "hosts": [each.host for each in members]}


def hosts_named(tx: Tx, name: str) -> list[str]:
    """The hosts of the aggregate of that name, in order. Raises NotFound."""
    row = results.first(AggregateRow, tx.execute(_NAMED, {"of": name}))
    if row is None:
        raise NotFound(f"There is no aggregate {name[:64]!r}; 'openstack aggregate list' shows those there are.")
    members = tx.execute(_MEMBERS.where(aggregate_hosts.c.aggregate_id == row["id"]))
    return [each.host for each in members]


# -- writing ----------------------------------------------------------------------------------------------------------
def create(tx: Tx, name: str, zone: str | None) -> Aggregate:
    """Raises Conflict when the name is taken."""
    _must_be_free(tx, name)
    number = counters.next_number(tx, "aggregate")
    tx.execute(
        insert(aggregates).values(
            id=number,
            uuid=tx.names.uuid(),
            name=name,
            metadata={} if zone is None else {ZONE: zone},
            created_at_us=tx.now_us,
        )
    )
    events.record(tx, "aggregate", Subject(SubjectKind.AGGREGATE, name), {"became": "created", "zone": zone})
    return get(tx, number)


def rename(tx: Tx, number: int, name: str | None, changes: Mapping[str, str | None]) -> Aggregate:
    """A new name, or a new zone, or both. Raises Conflict when the name is taken, and BadRequest."""
    aggregate = get(tx, number)
    if name is not None and name != aggregate["name"]:
        _must_be_free(tx, name)
        tx.execute(update(aggregates).where(aggregates.c.id == number).values(name=name, updated_at_us=tx.now_us))
        aggregate["name"] = name
    return _change(tx, aggregate, changes, _AggregateAction.UPDATE)


def set_metadata(tx: Tx, number: int, changes: Mapping[str, str | None]) -> Aggregate:
    """Add and replace these keys; those that are None go. Raises BadRequest for a zone that cannot be."""
    return _change(tx, get(tx, number), changes, _AggregateAction.SET)


def remove(tx: Tx, number: int) -> None:
    """Raises BadRequest while it has hosts."""
    aggregate = get(tx, number)
    if aggregate["hosts"]:
        raise BadRequest(_refusal(_AggregateAction.REMOVE, number, "Host aggregate is not empty"))
    tx.execute(delete(aggregates).where(aggregates.c.id == number))
    events.record(tx, "aggregate", Subject(SubjectKind.AGGREGATE, aggregate["name"]), {"became": "deleted"})


def add_host(tx: Tx, number: int, host: str) -> Aggregate:
    """Raises NotFound for a host without a compute service, and Conflict."""
    aggregate = get(tx, number)
    if tx.execute(_COMPUTE_ON, {"of": host}).first() is None:
        raise NotFound(f"Compute host {host} could not be found.")
    if host in aggregate["hosts"]:
        raise Conflict(f"Aggregate {number} already has host {host}.")
    tx.execute(insert(aggregate_hosts).values(aggregate_id=number, host=host))
    return _members_changed(tx, number, host, _AggregateAction.ADD)


def remove_host(tx: Tx, number: int, host: str) -> Aggregate:
    """Raises NotFound when it is not there, and Conflict."""
    get(tx, number)
    of = (aggregate_hosts.c.aggregate_id == number, aggregate_hosts.c.host == host)
    if not tx.execute(delete(aggregate_hosts).where(*of)).rowcount:
        raise NotFound(f"Cannot remove host {host} in aggregate {number}")
    return _members_changed(tx, number, host, _AggregateAction.REMOVE)


def forget_host(tx: Tx, host: str) -> None:
    """A host that is gone for good leaves its aggregates."""
    tx.execute(delete(aggregate_hosts).where(aggregate_hosts.c.host == host))


def _must_be_free(tx: Tx, name: str) -> None:
    if tx.execute(_NAMED, {"of": name}).first() is not None:
        raise Conflict(f"Aggregate {name} already exists.")


def _members_changed(tx: Tx, number: int, host: str, doing: _AggregateAction) -> Aggregate:
    tx.execute(update(aggregates).where(aggregates.c.id == number).values(updated_at_us=tx.now_us))
    aggregate = get(tx, number)
    _let_zones_follow(tx, aggregate, (host,), doing)
    events.record(
        tx, "aggregate", Subject(SubjectKind.AGGREGATE, aggregate["name"]), {"did": doing.value, "host": host}
    )
    return aggregate


def _change(tx: Tx, aggregate: Aggregate, changes: Mapping[str, str | None], doing: _AggregateAction) -> Aggregate:
    number = aggregate["id"]
    if ZONE in changes and not changes[ZONE]:
        reason = f"Aggregate {aggregate['name']} does not support empty named availability zone"
        raise BadRequest(_refusal(doing, number, reason))
    merged = {**aggregate["metadata"], **changes}
    kept = {key: value for key, value in merged.items() if value is not None}
    if len(kept) > METADATA_MAX:
        raise BadRequest(_refusal(doing, number, f"It would have {len(kept)} keys; at most {METADATA_MAX} are kept"))
    if kept != aggregate["metadata"]:
        tx.execute(update(aggregates).where(aggregates.c.id == number).values(metadata=kept, updated_at_us=tx.now_us))
        aggregate["metadata"] = kept
        _let_zones_follow(tx, aggregate, aggregate["hosts"], doing)
    events.record(
        tx,
        "aggregate",
        Subject(SubjectKind.AGGREGATE, aggregate["name"]),
        {"did": doing.value, "aggregate": number, "set": dict(changes)},
    )
    return get(tx, number)


# -- zones ------------------------------------------------------------------------------------------------------------
def _let_zones_follow(tx: Tx, aggregate: Aggregate, names: Sequence[str], doing: _AggregateAction) -> None:
    """Once the aggregate has been written. A host is in one zone only, and stays in it while it holds guests: they were
    promised that zone."""
    fault = Conflict if doing in (_AggregateAction.ADD, _AggregateAction.REMOVE) else BadRequest  # as Nova answers
    zones = _zones_of(tx, names)
    own = aggregate["metadata"].get(ZONE)
    others = sorted({zone for found in zones.values() if len(found) > 1 for zone in found if zone != own})
    if others:
        reason = f"One or more hosts already in availability zone(s) {others}"
        raise fault(_refusal(doing, aggregate["id"], reason))
    moving: dict[str, list[str]] = {}
    for row in tx.execute(select(host_rows.c.name, host_rows.c.zone).where(in_list(host_rows.c.name, names))):
        zone = next(iter(zones.get(row.name, ())), DEFAULT_ZONE)
        if zone != row.zone:
            moving.setdefault(zone, []).append(row.name)
    for zone, moved in moving.items():
        host = _first_with_guests(tx, moved)
        if host is not None:
            reason = f"One or more hosts contain instances in this zone: move those of {host} away first"
            raise fault(_refusal(doing, aggregate["id"], reason))
        tx.execute(update(host_rows).where(in_list(host_rows.c.name, moved)).values(zone=zone))
        of = (in_list(services.c.host, moved), services.c.binary == hosts.COMPUTE)
        tx.execute(update(services).where(*of).values(zone=zone))
    hosts.touch(tx, *names)


def _zones_of(tx: Tx, names: Sequence[str]) -> dict[str, set[str]]:
    found: dict[str, set[str]] = {}
    query = select(aggregate_hosts.c.host, aggregates.c.metadata).join(aggregates)
    for host, metadata in tx.execute(query.where(in_list(aggregate_hosts.c.host, names))):
        if metadata.get(ZONE):
            found.setdefault(host, set()).add(metadata[ZONE])
    return found


def _first_with_guests(tx: Tx, names: Sequence[str]) -> str | None:
    """One of them that holds a guest, or is about to."""
    held = select(instances.c.host).where(in_list(instances.c.host, names), instances.c.deleted.is_(False))
    coming = select(migrations.c.destination).where(in_list(migrations.c.destination, names), migrations.c.holds_claim)
    return tx.execute(held.limit(1)).scalar() or tx.execute(coming.limit(1)).scalar()
