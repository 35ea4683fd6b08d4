"""The rows that an audit looks at (control/audit.py), and the repairs that are writes."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import msgspec
from sqlalchemy import or_, select, update

from droveway.domain.audit_findings import (
    BrokenSaga,
    Finding,
    Instance,
    Listing,
    Migration,
    PoolListing,
    Repair,
    Seen,
    StoreSnapshot,
)
from droveway.domain.faults import NotFound
from droveway.domain.model import MigrationStatus, SagaKind, SagaStatus, Subject, SubjectKind, VmState
from droveway.domain.placement import HeldCell
from droveway.store.compute import file_cleanups, instances, migrations
from droveway.store.engine.in_list import in_list, one_of
from droveway.store.engine.prepared import Prepared
from droveway.store.engine.transaction import Tx
from droveway.store.fleet import hosts
from droveway.store.rows import InstanceRow
from droveway.store.schema import instances as i
from droveway.store.schema import migrations as m
from droveway.store.schema import sagas as s
from droveway.store.volume import audited as audited_volumes
from droveway.store.work import sagas, subjects

IDS_AT_ONCE = 500

_INSTANCE = tuple(i.c[name] for name in Instance.__struct_fields__)
_PLACED = Prepared(select(*_INSTANCE).where(or_(i.c.deleted.is_(False), i.c.host.is_not(None))))
_BY_IDS = Prepared(select(*_INSTANCE).where(in_list(i.c.id, "ids")))
_FENCES = Prepared(select(i.c.id, i.c.fence, i.c.host, i.c.deleted))
_MIGRATIONS = Prepared(
    select(*(m.c[name] for name in Migration.__struct_fields__)).where(
        or_(m.c.holds_claim.is_(True), one_of(m.c.status, [status.value for status in migrations.UNDER_WAY]))
    )
)
_OPEN = Prepared(
    select(s.c.id, s.c.kind, s.c.subject_kind, s.c.subject_id, s.c.status, s.c.error, s.c.updated_at_us).where(
        s.c.ended.is_(False)
    )
)


# -- reading ----------------------------------------------------------------------------------------------------------
def before(tx: Tx) -> tuple[dict[str, Seen], dict[str, str], dict[str, list[str]]]:
    """The instances at rest; the hosts, those that are up first, each with why it is down; and the pools of root disks,
    each with the hosts that are up and work with it."""
    busy = _busy(tx, tx.execute(_OPEN).fetchall())
    # Deleted ones too: what is left of them is held against the host only when nothing has begun since. Where
    # their files are still to be deleted, a host may delete them between its answer and the second look.
    pending = file_cleanups.instance_ids(tx)
    seen = {
        row.id: (row.fence, row.host)
        for row in tx.execute(_FENCES)
        if row.id not in busy and not (row.deleted and row.id in pending)
    }
    known = sorted(hosts.facts_of_all(tx), key=lambda host: not host.is_up)
    pools: dict[str, list[str]] = {}
    for host in sorted(known, key=lambda host: host.name):
        if host.root_pool and host.is_up:
            pools.setdefault(host.root_pool, []).append(host.name)
    return seen, {host.name: "" if host.is_up else f"it is down: {host.reason}" for host in known}, pools


def rows(tx: Tx, listings: list[Listing], pools: Sequence[PoolListing] = ()) -> StoreSnapshot:
    found = {row.id: _instance(row) for row in tx.execute(_PLACED)}
    named = {guest.instance_id for listing in listings for guest in listing.guests}
    named.update(*(listing.admitted for listing in listings), *(listing.files for listing in listings))
    named.update(*(listing.instance_ids for listing in pools))
    opened = list(tx.execute(_OPEN))
    busy = _busy(tx, opened)
    named |= busy
    missing = sorted(named - found.keys())
    for some in (missing[k : k + IDS_AT_ONCE] for k in range(0, len(missing), IDS_AT_ONCE)):
        found |= {row.id: _instance(row) for row in tx.execute(_BY_IDS, {"ids": some})}
    return StoreSnapshot(
        found,
        hosts.facts_of_all(tx),
        [Migration(**{**row._asdict(), "held_cells": _cells(row.held_cells)}) for row in tx.execute(_MIGRATIONS)],
        {saga.id for saga in opened},
        busy,
        [_broken(saga) for saga in opened if saga.status == SagaStatus.BROKEN],
        file_cleanups.instance_ids(tx),
    )


def _busy(tx: Tx, opened: Sequence[Any]) -> set[str]:
    """The instances that a saga which has not ended needs."""
    about = {saga.subject_id for saga in opened if saga.subject_kind == SubjectKind.INSTANCE}
    return about | subjects.beside(tx, SubjectKind.INSTANCE)


def _broken(saga: Any) -> BrokenSaga:
    subject = Subject(SubjectKind(saga.subject_kind), saga.subject_id)
    return BrokenSaga(saga.id, saga.kind, subject, saga.error, saga.updated_at_us)


def _instance(row: Any) -> Instance:
    return Instance(**{**row._asdict(), "held_cells": _cells(row.held_cells)})


def _cells(held: Any) -> tuple[HeldCell, ...]:
    return msgspec.convert(held, tuple[HeldCell, ...]) if held else ()


# -- writing: each says what it saw, and returns why it did nothing, or nothing ----------------------------------------
Write = Callable[[Tx, Finding, StoreSnapshot], str]
CHANGED = "it has changed since it was looked at; nothing was done"


def _resting(tx: Tx, finding: Finding, rows: StoreSnapshot) -> InstanceRow | None:
    """The instance, if nothing at all has happened to it since."""
    seen = rows.instances.get(finding.subject)
    try:
        row = instances.get(tx, finding.subject, deleted=True)
    except NotFound:
        return None
    is_same = seen is not None and (row["fence"], row["updated_at_us"]) == (seen.fence, seen.updated_at_us)
    return row if is_same and not sagas.busy_among(tx, [finding.subject]) else None


def _end_task(tx: Tx, finding: Finding, rows: StoreSnapshot) -> str:
    if _resting(tx, finding, rows) is None:
        return CHANGED
    instances.set_(tx, finding.subject, task_state=None)
    return ""


def _fail_build(tx: Tx, finding: Finding, rows: StoreSnapshot) -> str:
    if _resting(tx, finding, rows) is None:
        return CHANGED
    reason = "Nothing was at work on its creation any more, which an audit found. Delete it and create it again."
    fault = {"code": 500, "message": reason, "created_us": tx.now_us}
    instances.set_(tx, finding.subject, vm_state=VmState.ERROR.value, task_state=None, fault=fault)
    return ""


def _delete(tx: Tx, finding: Finding, rows: StoreSnapshot) -> str:
    if _resting(tx, finding, rows) is None:
        return CHANGED
    instances.intend(tx, finding.subject, SagaKind.DELETE, {})
    return ""


def _end_migration(tx: Tx, finding: Finding, rows: StoreSnapshot) -> str:
    """And give back what it holds."""
    seen = next((row for row in rows.migrations if str(row.id) == finding.subject), None)
    if seen is None:
        return CHANGED
    is_at_work = select(s.c.id).where(s.c.id == seen.saga_id, s.c.ended.is_(False)).exists()
    result = {"status": MigrationStatus.ERROR.value} if seen.status in migrations.UNDER_WAY else {}
    changed = tx.execute(
        update(m)
        .where(m.c.id == seen.id, m.c.updated_at_us == seen.updated_at_us, ~is_at_work)
        .values(holds_claim=False, held_cells=None, updated_at_us=tx.now_us, **result)
    ).rowcount
    if not changed:
        return CHANGED
    hosts.touch(tx, seen.destination)
    return ""


def _defer_removal(tx: Tx, finding: Finding, rows: StoreSnapshot) -> str:
    """From here on it is a deferred cleanup of that host, as if the server had been deleted while it was down."""
    row = _resting(tx, finding, rows)
    if row is None or not row["deleted"] or row["host"] is not None:
        return CHANGED
    tx.execute(update(i).where(i.c.id == row["id"], i.c.fence == row["fence"]).values(host=finding.where))
    return ""


def _defer_root_removal(tx: Tx, finding: Finding, rows: StoreSnapshot) -> str:
    """Likewise: that host removes it from the pool that it works with."""
    pool = next((host.root_pool for host in rows.hosts if host.name == finding.where), "")
    because = _defer_removal(tx, finding, rows) if pool else CHANGED
    if not because:
        tx.execute(update(i).where(i.c.id == finding.subject).values(root_pool=pool))
    return because


WRITES: dict[Repair, Write] = {
    Repair.END_TASK: _end_task,
    Repair.FAIL_BUILD: _fail_build,
    Repair.DELETE: _delete,
    Repair.END_MIGRATION: _end_migration,
    Repair.RELEASE_CLAIM: _end_migration,
    Repair.REMOVE_FILES: _defer_removal,
    Repair.REMOVE_ROOT_DISK: _defer_root_removal,
    Repair.TIDY_VOLUME: audited_volumes.tidy,
}
