"""The audit: rows, claims, and what every host says it has, asked afresh; and the repairs that are safe.

Looking changes nothing. A repair looks again first, does only what is still found, each in the way it is done anyway
(a saga, the guests loop, a row that is written under what was seen), and looks once more: what it calls done is no
longer found.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Awaitable, Callable, Iterable, Iterator, Sequence
from functools import partial
from typing import Any

import msgspec
import structlog
from sqlalchemy import or_, select, update

from droveway.control.engine.commands import send
from droveway.control.engine.saga import NotYet
from droveway.domain.audit import audit
from droveway.domain.audit_findings import (
    BrokenSaga,
    Finding,
    Instance,
    Listing,
    Migration,
    Repair,
    Seen,
    StoreSnapshot,
)
from droveway.domain.faults import BadRequest, Busy, Fault, NotFound
from droveway.domain.model import MigrationStatus, SagaKind, SagaStatus, Subject, SubjectKind, VmState, of_host
from droveway.domain.placement import HeldCell, PlacementSettings
from droveway.ports.bus import ControlBus, ListGuests, Report
from droveway.ports.clock import Clock
from droveway.ports.control import COMPARE_MAX_S, LOOK_MAX_S, AuditResult, RepairResult, SkippedHost, UnrepairedFinding
from droveway.scheduler.capacity import capacities, ratios_of
from droveway.store.compute import instances, migrations
from droveway.store.engine.in_list import in_list, one_of
from droveway.store.engine.prepared import Prepared
from droveway.store.engine.transaction import Store, Tx
from droveway.store.fleet import hosts
from droveway.store.rows import InstanceRow
from droveway.store.schema import instances as i
from droveway.store.schema import migrations as m
from droveway.store.schema import sagas as s
from droveway.store.work import sagas, subjects

log = structlog.get_logger("droveway.audit")
HOSTS_AT_ONCE = 256
HOST_ANSWERS_S = 3.0
FINDINGS_MAX = 1000  # told and repaired at once
IDS_AT_ONCE = 500

_INSTANCE = tuple(i.c[name] for name in Instance.__struct_fields__)
_PLACED = Prepared(select(*_INSTANCE).where(or_(i.c.deleted.is_(False), i.c.host.is_not(None))))
_BY_IDS = Prepared(select(*_INSTANCE).where(in_list(i.c.id, "ids")))
_FENCES = Prepared(select(i.c.id, i.c.fence, i.c.host))
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


class AuditPass(msgspec.Struct):
    """What one audit has found, and which hosts it could not look at, each with why."""

    at_us: int
    findings: list[Finding]
    not_looked_at: dict[str, str]
    listings: dict[str, Listing]
    rows: StoreSnapshot

    def result(self) -> AuditResult:
        """For people."""
        rows, silent = self.rows, sorted(self.not_looked_at.items())
        return AuditResult(
            at_us=self.at_us,
            hosts=len(rows.hosts),
            hosts_answered=len(self.listings),
            instances=sum(not row.deleted for row in rows.instances.values()),
            not_looked_at=[SkippedHost(host, why) for host, why in silent[:FINDINGS_MAX]],
            findings=self.findings[:FINDINGS_MAX],
            more=max(0, len(self.findings) - FINDINGS_MAX),
        )


class Audit:
    """`compare` is the guests loop's own look at one host."""

    def __init__(
        self,
        store: Store,
        bus: ControlBus,
        clock: Clock,
        compare: Callable[[Report], Awaitable[None]],
        settings: PlacementSettings,
    ) -> None:
        self._store, self._bus, self._clock = store, bus, clock
        self._compare = compare
        self._capacities = partial(capacities, ratios=ratios_of(settings))
        self._is_looking = False

    async def __call__(self) -> AuditResult:
        """Raises Busy while another audit is under way."""
        with self._alone():
            return (await self.look()).result()

    async def repair(self, keys: list[str]) -> RepairResult:
        """Of the findings with these keys those that are safe to repair and still true. Raises Busy, BadRequest."""
        if len(keys) > FINDINGS_MAX:
            raise BadRequest(f"At most {FINDINGS_MAX} findings are repaired at once; {len(keys)} were named.")
        with self._alone():
            seen = await self.look()
            chosen = {finding.key: finding for finding in seen.findings if finding.key in set(keys)}
            refused = await self._repair(chosen.values(), seen)
            still = {finding.key for finding in (await self.look()).findings} if chosen else set()
        done = [finding for key, finding in chosen.items() if key not in still]
        left = [(chosen[key], refused.get(key) or _why_left(chosen[key])) for key in chosen if key in still]
        for finding in done:
            log.info("audit repaired", what=finding.what, where=finding.where, repair=finding.repair.value)
        return RepairResult(
            done, [UnrepairedFinding(*each) for each in left], [key for key in keys if key not in chosen]
        )

    @contextlib.contextmanager
    def _alone(self) -> Iterator[None]:
        if self._is_looking:
            raise Busy("An audit is under way; ask again when it has ended, which is within half a minute.")
        self._is_looking = True
        try:
            yield
        finally:
            self._is_looking = False

    # -- looking ------------------------------------------------------------------------------------------------------
    async def look(self) -> AuditPass:
        """Ask every host, between two looks at the rows."""
        before, known = await self._store.read(_before)
        listings, silent = await self._ask(known)

        def compare(tx: Tx) -> tuple[StoreSnapshot, list[Finding]]:  # where the store is read: it takes a while
            rows = _rows(tx, listings)
            return rows, audit(rows, listings, before, self._capacities)

        rows, findings = await self._store.read(compare)
        by_host = {listing.host: listing for listing in listings}
        return AuditPass(self._clock.now_us(), findings, silent, by_host, rows)

    async def _ask(self, known: dict[str, str]) -> tuple[list[Listing], dict[str, str]]:
        """What each host has, and why the others did not say. One that is shown down may answer all the same. Ends
        within LOOK_MAX_S."""
        found: list[Listing] = []
        silent = dict.fromkeys(known, f"it was not asked within {LOOK_MAX_S:.0f} s; ask again")
        waiting = iter(known)

        async def ask_next() -> None:
            for host in waiting:  # shared by all that ask: each takes the next one
                silent[host] = f"it did not answer within {LOOK_MAX_S:.0f} s"
                try:
                    found.append(await self._list(host))
                    del silent[host]
                except Fault as fault:
                    silent[host] = known[host] or fault.reason
                except NotYet:
                    silent[host] = "it is at work; ask again"

        asking = [asyncio.ensure_future(ask_next()) for _ in range(min(HOSTS_AT_ONCE, len(known)))]
        try:
            if asking:
                ended, _ = await asyncio.wait(asking, timeout=LOOK_MAX_S)
                for task in ended:
                    task.result()
        finally:
            for task in asking:
                task.cancel()
            await asyncio.gather(*asking, return_exceptions=True)
        return found, silent

    async def _list(self, host: str) -> Listing:
        has = await send(self._bus, host, of_host(host), 0, ListGuests(), HOST_ANSWERS_S)
        return Listing(host, has.boot_id, has.guests, has.admitted, has.files)

    # -- repairing ----------------------------------------------------------------------------------------------------
    async def _repair(self, chosen: Iterable[Finding], seen: AuditPass) -> dict[str, str]:
        """Try each once; why those that were not done were not."""
        refused: dict[str, str] = {}
        on_hosts: set[str] = set()
        for finding in chosen:
            write = WRITES.get(finding.repair)
            if finding.repair is Repair.COMPARE:
                on_hosts.add(finding.where)
            if write is None:
                continue
            try:
                because = await self._store.run(write, finding, seen.rows)
            except Fault as fault:
                because = fault.reason
            if because:
                refused[finding.key] = because
            elif finding.repair is Repair.REMOVE_FILES:
                on_hosts.add(finding.where)
        names = sorted(on_hosts & seen.listings.keys())
        with contextlib.suppress(TimeoutError, Busy):  # what was not done is found again
            async with asyncio.timeout(COMPARE_MAX_S):
                for some in (names[k : k + HOSTS_AT_ONCE] for k in range(0, len(names), HOSTS_AT_ONCE)):
                    await asyncio.gather(*(self._compare(_report(seen.listings[host])) for host in some))
        return refused


def _why_left(finding: Finding) -> str:
    if finding.repair is Repair.HUMAN:
        return finding.plan
    return "it is still so; 'droveway audit' shows whether it goes on being so"


def _report(listing: Listing) -> Report:
    return Report(listing.host, listing.boot_id, 0, True, "", None, listing.guests, True, listing.admitted)


# -- reading ----------------------------------------------------------------------------------------------------------
def _before(tx: Tx) -> tuple[dict[str, Seen], dict[str, str]]:
    """The instances at rest; the hosts, those that are up first, each with why it is down."""
    busy = _busy(tx, tx.execute(_OPEN).fetchall())
    # Deleted ones too: what is left of them is held against the host only when nothing has begun since.
    seen = {row.id: (row.fence, row.host) for row in tx.execute(_FENCES) if row.id not in busy}
    known = sorted(hosts.facts_of_all(tx), key=lambda host: not host.is_up)
    return seen, {host.name: "" if host.is_up else f"it is down: {host.reason}" for host in known}


def _rows(tx: Tx, listings: list[Listing]) -> StoreSnapshot:
    found = {row.id: _instance(row) for row in tx.execute(_PLACED)}
    named = {guest.instance_id for listing in listings for guest in listing.guests}
    named.update(*(listing.admitted for listing in listings), *(listing.files for listing in listings))
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


WRITES: dict[Repair, Write] = {
    Repair.END_TASK: _end_task,
    Repair.FAIL_BUILD: _fail_build,
    Repair.DELETE: _delete,
    Repair.END_MIGRATION: _end_migration,
    Repair.RELEASE_CLAIM: _end_migration,
    Repair.REMOVE_FILES: _defer_removal,
}
