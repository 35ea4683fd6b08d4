"""Control's side of placing: the columns of all hosts, kept in step with the store, and the claim in its transaction.

The columns are a memory, and the store is the truth: a claim is written only under the number (`hosts.claims`) that it
was decided on, so what the columns have wrong is found out, looked at again and decided again. What the columns know
from within a transaction is not known to have been kept: such a host is unsure until the transaction has ended well,
and is looked at again before a claim there, because another control may give its number to another claim.

The writer's thread chooses, the loop's thread refreshes: a lock is held shortly, never across a statement.
"""

from __future__ import annotations

import asyncio
import threading
from collections import deque
from collections.abc import Sequence
from itertools import islice
from typing import Any

import msgspec
import structlog

from droveway.control.engine.nudges import Nudges, wait
from droveway.domain.faults import Busy
from droveway.domain.placement import HeldCell, HostFacts, PlacementRequest, PlacementSettings, Plan
from droveway.ports.clock import Clock
from droveway.scheduler.columns import Columns
from droveway.scheduler.plan import (
    first_failing,
    fit_cells,
    have_headroom,
    place,
    place_many,
    reason,
    why_immovable,
)
from droveway.scheduler.summaries import taken
from droveway.store.engine.transaction import Store, Tx
from droveway.store.fleet import hosts, root_pools

log = structlog.get_logger("droveway.placer")
PAUSE_S = 0.25  # between two refreshes, however many nudges there are
PLANS = 2  # of one choice: the second after everything that has changed was looked at again
PUT_AT_ONCE = 256  # hosts, between two looks at the loop
WOKEN_MAX = 256  # requests that wait for room, looked at after each refresh; the oldest first
FAILED_KEPT_S = 600.0  # how long a host is weighed down by a guest that failed to start there
FAILED_MAX = 16  # remembered of one host


class Decision(msgspec.Struct, frozen=True):
    """One choice with its reasons. `host` None: none was found, and `sentence` says why. `claims`: the number of the
    host with this claim. `seen`: the placer's count of changes when it was made."""

    ask: PlacementRequest
    plan: Plan
    races: tuple[str, ...]
    host: str | None = None
    cells: tuple[HeldCell, ...] = ()
    claims: int = 0
    seen: int = 0
    root_pool: str = ""  # in which that host keeps root disks

    @property
    def reason(self) -> str:
        if self.races and self.plan.ranked:
            return taken(self.races)
        return reason(self.plan)

    def body(self, kind: str, settings: PlacementSettings) -> dict[str, Any]:
        """As it is kept in `placements`."""
        return {"kind": kind, "ask": self.ask, "plan": self.plan, "settings": settings, "races": self.races}


class Placer:
    def __init__(
        self, store: Store, clock: Clock, nudges: Nudges, settings: PlacementSettings, refresh_s: float
    ) -> None:
        self.settings = settings
        self.changes = 0  # rises with every refresh that found something new
        self._store, self._clock, self._nudges, self._refresh_s = store, clock, nudges, refresh_s
        self._lock = threading.Lock()
        self._columns = Columns()
        self._numbers: dict[str, int] = {}  # host -> its `claims` in the columns
        self._unsure: dict[str, int] = {}  # host -> its number in a transaction that is not known to have been kept
        # Hosts that the store has shown once without our claim: its transaction may be under way, and would be placed
        # over. Shown so again by the next reading, it was not kept.
        self._behind: set[str] = set()
        self._is_news = False  # a transaction was the first to see a change: those that wait have not been told
        self._failed: dict[str, deque[float]] = {}  # host -> when guests failed to start there, by our clock
        self._waiting: dict[str, PlacementRequest] = {}  # saga -> what it waits for; the oldest first
        self._with_capacity: set[str] = set()  # those of them for which there was room when last looked
        self._in_vain: set[str] = set()  # those of them that did not get it, until something changes
        self._let_others = False  # one was woken in vain: what it stood before may be another's
        self._refreshing = asyncio.Lock()

    # -- in the loop --------------------------------------------------------------------------------------------------
    async def load(self) -> None:
        """Everything, before the first request."""
        await self.refresh()

    async def run(self) -> None:
        """Until cancelled: keep in step with what others write. A nudge wakes it; the interval finds the rest."""
        with self._nudges.listen(hosts.CAPACITY) as woken:
            while True:
                await wait(woken, self._refresh_s)
                try:
                    await self.refresh()
                except Busy as fault:
                    log.warning("refresh of hosts postponed", because=fault.reason)
                await self._clock.sleep(PAUSE_S)

    async def refresh(self) -> None:
        """Read again every host whose number has changed, or of which we are unsure."""
        async with self._refreshing:
            with self._lock:
                known, unsure, highest = dict(self._numbers), dict(self._unsure), self._highest_id
            gone, changed = await self._store.read(_changed, known, frozenset(unsure), highest)
            for start in range(0, len(changed), PUT_AT_ONCE):
                with self._lock:
                    for facts in changed[start : start + PUT_AT_ONCE]:
                        self._take(facts, known, unsure)
                await asyncio.sleep(0)
            with self._lock:
                for name in gone:
                    if self._numbers.get(name) == known[name]:
                        self._drop(name)
                recovered = self._forget_old_failures()
                is_news, self._is_news = self._is_news, False
            let_others, self._let_others = self._let_others, False
            if gone or changed or recovered or is_news:
                self.changes += 1
                self._in_vain.clear()
                self._wake()
            elif let_others:
                self._wake()

    def _take(self, facts: HostFacts, known: dict[str, int], unsure: dict[str, int]) -> None:
        """What was read stands, unless a claim was made here since the reading began: that one is newer."""
        name = facts.name
        if self._unsure.get(name) == unsure.get(name) and self._numbers.get(name) == known.get(name):
            if facts.claims < self._unsure.get(name, 0) and name not in self._behind:
                self._behind.add(name)
                return
            self._put(facts)
            self._unsure.pop(name, None)
            self._behind.discard(name)

    def kept(self, decision: Decision) -> None:
        """The transaction of that decision was kept: what the columns say of its host is true."""
        with self._lock:
            if decision.host is not None and self._unsure.get(decision.host) == decision.claims:
                del self._unsure[decision.host]
                self._behind.discard(decision.host)

    def plan(self, ask: PlacementRequest, seed: int, settings: PlacementSettings | None = None) -> Plan:
        """What would be decided now; nothing is claimed."""
        with self._lock:
            return place(self._columns, ask, settings or self.settings, seed)

    def plans(self, asks: Sequence[PlacementRequest], seed: int) -> list[Plan]:
        """The same for several, each seeing what those before it would take."""
        with self._lock:
            return place_many(self._columns, asks, self.settings, seed)

    def facts(self, name: str) -> HostFacts | None:
        """That host as it is known here."""
        with self._lock:
            return self._columns.facts(name) if name in self._columns else None

    def why_immovable(self, decision: Decision) -> str:
        """Why the guest could move to no other host while it runs, as far as is known here; mostly empty."""
        assert decision.host is not None
        with self._lock:
            return why_immovable(self._columns, decision.host, decision.ask, self.settings)

    def names(self) -> dict[int, str]:
        """Every host that is known here, by its number."""
        with self._lock:
            return {facts.id: facts.name for facts in self._columns}

    # -- requests that wait for room ----------------------------------------------------------------------------------
    def wait_for_capacity(self, saga_id: str, decision: Decision, *, in_vain: bool = False) -> None:
        """Nudge that saga once a host may fit; `has_room` says so from then on. `in_vain`: it was woken, and found that
        the room is not for it."""
        if in_vain:
            self._in_vain.add(saga_id)
            self._let_others = True
            self._nudges.call(hosts.CAPACITY)
        ask = decision.ask
        if decision.seen != self.changes and self.plan(ask, 0).ranked:  # something has changed since it was refused
            self._with_capacity.add(saga_id)
        # Where other servers are may change as well: a request that waits for them is tried whenever there is capacity.
        self._waiting[saga_id] = msgspec.structs.replace(ask, group=None, same_host=None, different_host=())

    def has_capacity(self, saga_id: str) -> bool:
        return saga_id in self._with_capacity

    def stop_waiting(self, saga_id: str) -> None:
        self._waiting.pop(saga_id, None)
        self._with_capacity.discard(saga_id)
        self._in_vain.discard(saga_id)

    def _wake(self) -> None:
        """Those for whom there is room, one after the other: each sees what the ones before it will take."""
        line = (one for one in self._waiting.items() if one[0] not in self._in_vain)
        oldest = list(islice(line, WOKEN_MAX))
        if not oldest:
            return
        with self._lock:
            found = have_headroom(self._columns, [ask for _, ask in oldest], self.settings, self.changes)
        for (saga_id, _), has_capacity in zip(oldest, found, strict=True):
            if has_capacity and saga_id not in self._with_capacity:
                self._with_capacity.add(saga_id)
                self._nudges.call(f"saga:{saga_id}")

    # -- in a write transaction ---------------------------------------------------------------------------------------
    def choose(self, tx: Tx, ask: PlacementRequest) -> Decision:
        """A host for `ask`, claimed; the caller writes the row that holds the claim in the same transaction. When the
        transaction has been kept, `kept` is to be told."""
        races: list[str] = []
        for last in (False, True):
            with self._lock:
                seen, plan = self.changes, place(self._columns, ask, self.settings, _seed(tx))
                # As the plan saw them: later changes of the columns have not been weighed.
                sure = {
                    choice.name: self._columns.facts(choice.name)
                    for choice in plan.ranked
                    if choice.name not in self._unsure
                }
            for choice in plan.ranked:
                claimed = self._claim(tx, choice.name, sure.get(choice.name), ask, races)
                if claimed is not None:
                    facts, cells = claimed
                    number = facts.claims + 1
                    return Decision(ask, plan, tuple(races), facts.name, cells, number, seen, facts.root_pool)
            if last or not self._look_again(tx):
                break
        return Decision(ask, plan, tuple(races), seen=seen)

    def _claim(
        self, tx: Tx, name: str, facts: HostFacts | None, ask: PlacementRequest, races: list[str]
    ) -> tuple[HostFacts, tuple[HeldCell, ...]] | None:
        """That host, as it was seen; what stood in the way goes to `races`. `facts`: None when they are unsure."""
        if facts is None or not self._is_pool_as_seen(tx, facts, ask) or not self._swap(tx, facts):
            if facts is not None:
                races.append(f"{name}: something was changed there at the same moment")
            facts = self._look(tx, name)
            if facts is None:
                races.append(f"{name}: it is gone")
                return None
            failing = first_failing(facts, ask, self.settings)
            if failing is not None:
                races.append(f"{name}: {failing.reason}")
                return None
            if not self._swap(tx, facts):
                races.append(f"{name}: another placement was first")
                return None
        cells = fit_cells(facts, ask)
        with self._lock:
            if self._numbers.get(name) == facts.claims:
                self._columns.hold(name, ask, cells)
                self._numbers[name] = self._unsure[name] = facts.claims + 1
        return facts, cells

    def _is_pool_as_seen(self, tx: Tx, seen: HostFacts, ask: PlacementRequest) -> bool:
        """What is promised of a pool of root disks changes with every host that uses it, and no host's number says."""
        return not (seen.root_pool and ask.disk_gb) or root_pools.used_gb(tx, seen.root_pool) == seen.disk_gb_used

    def _swap(self, tx: Tx, seen: HostFacts) -> bool:
        """The compare-and-swap."""
        return hosts.claim(tx, seen)

    def _look(self, tx: Tx, name: str) -> HostFacts | None:
        """The host as it is in this transaction."""
        found = hosts.facts_of(tx, [name])
        with self._lock:
            for facts in found:
                self._put(facts)
                self._unsure[name] = facts.claims
                self._is_news = True
        return found[0] if found else None

    def _look_again(self, tx: Tx) -> bool:
        """At everything that has changed; whether anything has."""
        with self._lock:
            known, unsure, highest = dict(self._numbers), frozenset(self._unsure), self._highest_id
        gone, changed = _changed(tx, known, unsure, highest)
        with self._lock:
            for facts in changed:
                self._put(facts)
                self._unsure[facts.name] = facts.claims
            for name in gone:
                self._drop(name)
            self._is_news = self._is_news or bool(gone or changed)
        return bool(gone or changed)

    def failed(self, name: str) -> None:
        """A guest could not be started there."""
        with self._lock:
            self._failed.setdefault(name, deque(maxlen=FAILED_MAX)).append(self._clock.monotonic_s())
            if name in self._columns:
                self._put(self._columns.facts(name))

    # -- the columns; under the lock ----------------------------------------------------------------------------------
    def _put(self, facts: HostFacts) -> None:
        failures = len(self._failed.get(facts.name, ()))
        self._columns.put(facts if failures == facts.failures else msgspec.structs.replace(facts, failures=failures))
        self._numbers[facts.name] = facts.claims

    @property
    def _highest_id(self) -> int:
        return int(self._columns.column("id").max(initial=0))

    def _drop(self, name: str) -> None:
        self._columns.drop(name)
        self._numbers.pop(name, None)
        self._unsure.pop(name, None)
        self._behind.discard(name)

    def _forget_old_failures(self) -> bool:
        """Whether a host has been forgiven one."""
        before_s = self._clock.monotonic_s() - FAILED_KEPT_S
        old = [name for name, times in self._failed.items() if times[0] < before_s]
        for name in old:
            times = self._failed[name]
            while times and times[0] < before_s:
                times.popleft()
            if not times:
                del self._failed[name]
            if name in self._columns:
                self._put(self._columns.facts(name))
        return bool(old)


def _seed(tx: Tx) -> int:
    return int(tx.names.uuid()[:8], 16)


def _changed(tx: Tx, known: dict[str, int], unsure: frozenset[str], highest: int) -> tuple[list[str], list[HostFacts]]:
    """The hosts of `known` that are gone, and the facts of those whose number is another one now, or unsure."""
    again = hosts.facts_of(tx, sorted(unsure))
    now = {name: claims for name, claims in known.items() if name not in unsure}
    now |= {facts.name: facts.claims for facts in again}
    if hosts.stamp(tx) == (len(now), sum(now.values()), highest):
        return [name for name in known if name not in now], again
    numbers, newer = dict(hosts.claims_of_all(tx)), hosts.newer(tx, highest)
    gone = [name for name in known if name not in numbers]
    other = [name for name, claims in numbers.items() if now.get(name) != claims or name in newer]
    if 2 * len(other) > len(numbers):
        return gone, hosts.facts_of_all(tx)
    return gone, again + hosts.facts_of(tx, other)
