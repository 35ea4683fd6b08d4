"""The audit: rows, claims, and what every host says it has, asked afresh; and the repairs that are safe.

Looking changes nothing. A repair looks again first, does only what is still found, each in the way it is done anyway
(a saga, the guests loop, a row that is written under what was seen), and looks once more: what it calls done is no
longer found.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Awaitable, Callable, Iterable, Iterator
from functools import partial
from typing import TypeVar

import msgspec
import structlog

from droveway.control.engine.commands import send
from droveway.control.engine.saga import NotYet
from droveway.control.loops import turns
from droveway.domain import service_kinds
from droveway.domain.audit import audit, worst_first
from droveway.domain.audit_findings import Finding, Listing, PoolListing, Repair, StoreSnapshot
from droveway.domain.faults import BadRequest, Busy, Fault, Unreachable
from droveway.domain.model import of_host
from droveway.domain.placement import PlacementSettings
from droveway.domain.volume.audit import ORPHANED, BackendListing
from droveway.domain.volume.audit import audit as audit_volumes
from droveway.ports.bus import ControlBus, ListGuests, Report
from droveway.ports.clock import Clock
from droveway.ports.control import COMPARE_MAX_S, LOOK_MAX_S, AuditResult, RepairResult, SkippedHost, UnrepairedFinding
from droveway.ports.kept_disk_verbs import ListRootDisks
from droveway.ports.replies import FILES_MAX
from droveway.ports.volume_verbs import ListVolumes
from droveway.scheduler.capacity import capacities, ratios_of
from droveway.store.engine.transaction import Store, Tx
from droveway.store.volume import audited as audited_volumes
from droveway.store.work import audited

L = TypeVar("L")
log = structlog.get_logger("droveway.audit")
HOSTS_AT_ONCE = 256
HOST_ANSWERS_S = 3.0
BACKEND_ANSWERS_S = 7.0  # it asks its pool, which may be far away
POOL_ANSWERS_S, POOL_TRIES = 7.0, 3  # a pool is asked for by one of its hosts, or by another one
FINDINGS_MAX = 1000  # told and repaired at once
BY_HOST = frozenset({Repair.REMOVE_FILES, Repair.REMOVE_ROOT_DISK})


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
        before, known, pools = await self._store.read(audited.before)
        volumes_before, backends = await self._store.read(audited_volumes.before)
        (listings, silent), (of_backends, silent_backends), (of_pools, silent_pools) = await asyncio.gather(
            self._ask(known, self._list),
            self._ask(backends, self._list_volumes),
            self._ask(dict.fromkeys(pools, ""), lambda pool: self._list_roots(pool, pools[pool])),
        )
        silent |= {f"pool {pool}": why for pool, why in silent_pools.items()}

        def compare(tx: Tx) -> tuple[StoreSnapshot, list[Finding]]:  # where the store is read: it takes a while
            rows = audited.rows(tx, listings, of_pools)
            found = audit(rows, listings, before, self._capacities, of_pools)
            of_volumes = audit_volumes(audited_volumes.rows(tx), of_backends, volumes_before)
            return rows, worst_first([*found, *of_volumes])

        rows, findings = await self._store.read(compare)
        findings, silent_again = await self._still_there(findings, backends)
        by_host = {listing.host: listing for listing in listings}
        return AuditPass(self._clock.now_us(), findings, silent | silent_backends | silent_again, by_host, rows)

    async def _still_there(
        self, findings: list[Finding], backends: dict[str, str]
    ) -> tuple[list[Finding], dict[str, str]]:
        """A volume without a row may have been made and deleted between the two looks: its backend is asked again, and
        no row of that id can have come since."""
        doubtful = {finding.where for finding in findings if finding.kind == ORPHANED}
        if not doubtful:
            return findings, {}
        again, silent = await self._ask({name: backends.get(name, "") for name in sorted(doubtful)}, self._list_volumes)
        there = {(listing.backend, volume.volume_id) for listing in again for volume in listing.volumes}
        kept = [one for one in findings if one.kind != ORPHANED or (one.where, one.subject) in there]
        return kept, silent

    async def _ask(
        self, known: dict[str, str], list_one: Callable[[str], Awaitable[L]]
    ) -> tuple[list[L], dict[str, str]]:
        """What each host or backend has, and why the others did not say. One that is shown down may answer all the
        same. Ends within LOOK_MAX_S."""
        found: list[L] = []
        silent = dict.fromkeys(known, f"it was not asked within {LOOK_MAX_S:.0f} s; ask again")
        waiting = iter(known)

        async def ask_next() -> None:
            for host in waiting:  # shared by all that ask: each takes the next one
                silent[host] = f"it did not answer within {LOOK_MAX_S:.0f} s"
                try:
                    found.append(await list_one(host))
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

    async def _list_volumes(self, backend: str) -> BackendListing:
        host, service = service_kinds.address_of(backend, service_kinds.VOLUME)
        has = await send(self._bus, host, of_host(host), 0, ListVolumes(), BACKEND_ANSWERS_S, service)
        return BackendListing(backend, has.volumes)

    async def _list_roots(self, pool: str, by: list[str]) -> PoolListing:
        silent: Fault | None = None
        for host in by[:POOL_TRIES]:
            try:
                has = await send(self._bus, host, of_host(host), 0, ListRootDisks(), POOL_ANSWERS_S)
            except Fault as fault:
                silent = fault
                continue
            if has.pool == pool:
                return PoolListing(host, pool, has.instance_ids, is_whole=len(has.instance_ids) < FILES_MAX)
        raise silent or Unreachable(f"none of its hosts works with {pool} by now")

    # -- repairing ----------------------------------------------------------------------------------------------------
    async def _repair(self, chosen: Iterable[Finding], seen: AuditPass) -> dict[str, str]:
        """Try each once; why those that were not done were not."""
        refused: dict[str, str] = {}
        on_hosts: set[str] = set()
        for finding in chosen:
            write = audited.WRITES.get(finding.repair)
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
            elif finding.repair in BY_HOST:
                on_hosts.add(finding.where)
        names = sorted(on_hosts & seen.listings.keys())
        with contextlib.suppress(TimeoutError, Busy):  # what was not done is found again
            async with asyncio.timeout(COMPARE_MAX_S):
                for some in (names[k : k + HOSTS_AT_ONCE] for k in range(0, len(names), HOSTS_AT_ONCE)):
                    await turns.all_of(self._compare(_report(seen.listings[host])) for host in some)
        return refused


def _why_left(finding: Finding) -> str:
    if finding.repair is Repair.HUMAN:
        return finding.plan
    return "it is still so; 'droveway audit' shows whether it goes on being so"


def _report(listing: Listing) -> Report:
    return Report(listing.host, listing.boot_id, 0, True, "", None, listing.guests, True, listing.admitted)
