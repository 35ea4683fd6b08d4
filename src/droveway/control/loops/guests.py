"""Every instance is as its host says, and every guest on a host belongs there.

Reports are hints that something may be off; what is off is asked afresh before anything is written or commanded, and
only where no saga is under way: `instances.fence` unchanged since the row was read proves that none has been.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Mapping
from typing import Any

import structlog

from droveway.control.engine.commands import send
from droveway.control.engine.nudges import Nudges, wait
from droveway.control.engine.saga import ControlSettings, NotYet
from droveway.control.liveness.admission import Admission
from droveway.control.liveness.observer import Observer
from droveway.control.loops import guest_rows as rows
from droveway.control.loops import turns
from droveway.control.loops.guest_rows import POWER, RUNS, GuestRows, instance_was_lost, runs_in
from droveway.control.loops.returning import ReturningHosts
from droveway.domain.faults import Busy, Stale, StepFailed, Unreachable
from droveway.domain.model import Guest, GuestState, of_instance
from droveway.domain.reconcile import Remedy, UnexpectedGuestRemedy, remedy, unexpected_guest_remedy
from droveway.ports.bus import (
    ControlBus,
    Dismiss,
    GuestChanged,
    Inspect,
    Release,
    Remove,
    Report,
    Stop,
    Verb,
)
from droveway.ports.verb import VerbWithReply
from droveway.store.compute import instances
from droveway.store.engine.transaction import Store
from droveway.store.rows import DeferredCleanupRow, InstanceRow

log = structlog.get_logger("droveway.guests")
INTERVAL_S = 30.0
READ_AT_ONCE, HOSTS_AT_ONCE = 128, 16  # hosts whose rows are read together, and that are asked at once
# Reports wait for others: ten thousand hosts send 170 a second, and to read for each by itself costs control a fifth of
# a core. So long for each host there is, 0.25 s with ten thousand; a guest that has changed does not wait.
GATHER_A_HOST_S, GATHER_MAX_S = 0.000_025, 1.0
AGAIN_S = 1.0  # after the store has refused
TURN_S = 10.0  # of one host: one whose disk hangs keeps the others waiting no longer
LISTENS_FIRST_S = 15.0  # after the start, for all hosts to say which guests they have
HIDDEN_LOOK_S, HIDDEN_MAX = 5.0, 10_000
ALARMED_MAX = 10_000  # remembered; beyond, the same is said once more
MISSED = frozenset({Remedy.START_AGAIN, Remedy.RECORD_STOPPED})  # not while the guest is found on another host
ENDINGS: dict[UnexpectedGuestRemedy, tuple[Verb, ...]] = {
    UnexpectedGuestRemedy.REMOVE: (Remove(),),
    UnexpectedGuestRemedy.RELEASE: (Release(),),
    UnexpectedGuestRemedy.END: (Stop(0.0), Release()),
}


class GuestsLoop:
    def __init__(
        self,
        store: Store,
        bus: ControlBus,
        observer: Observer,
        nudges: Nudges,
        settings: ControlSettings,
        admission: Admission | None = None,
    ) -> None:
        self._store, self._bus, self._observer, self._nudges = store, bus, observer, nudges
        self._inbox = observer.inbox
        self._settings, self._pause_us = settings, int(settings.start_again_pause_s * 1_000_000)
        self._admission = admission or Admission(store, nudges, observer, 0.0)
        self._returning = ReturningHosts(store, bus, self._admission, settings.command_timeout_s, self._reconcile_all)
        self._alarmed: set[tuple[str, str]] = set()
        self._running: dict[str, set[str]] = {}  # by host: the guests that run there, as it last said
        self._reported: set[str] = set()  # hosts that have reported all their guests
        self._later: dict[str, Report] = {}  # of hosts that miss a guest, until all the others were heard
        self._hidden: dict[tuple[str, str], Guest] = {}  # by host and guest: reported while a saga was at work on it
        self._next_look_s = 0.0  # at reports, as `observer.age_s` counts

    async def run(self) -> None:
        """Until cancelled."""
        with self._nudges.listen("guests") as woken:
            while True:
                try:
                    await self._once()
                    wait_s = self._next_look_s - self._observer.age_s() if self._inbox.has_complete else INTERVAL_S
                    if self._later or self._inbox.has_changed:  # until all hosts were heard
                        wait_s = min(wait_s, AGAIN_S)
                    if self._hidden or self._admission.returning:  # what else ends that may not be heard
                        wait_s = min(wait_s, HIDDEN_LOOK_S)
                except Busy as fault:
                    log.warning("comparison of guests postponed", because=fault.reason)
                    wait_s = AGAIN_S
                await wait(woken, max(wait_s, 0.0))

    async def _once(self) -> None:
        changed = self._inbox.take_changed()
        reports = self._ready()
        self._note(reports, changed)
        try:
            await self._look_at(list(changed.values()))
            each = list(reports.values())
            for some in (each[i : i + READ_AT_ONCE] for i in range(0, len(each), READ_AT_ONCE)):
                await self._compare(some)
            await self._look_at_all_hidden()
            await self._returning.receive()
        except Busy:  # all of it is looked at again
            self._inbox.return_changed(changed)
            self._inbox.return_complete(reports)
            self._next_look_s = self._observer.age_s() + AGAIN_S
            raise

    def _ready(self) -> dict[str, Report]:
        """The reports to look at: all that wait, now and then."""
        now_s = self._observer.age_s()
        if now_s < self._next_look_s:
            return {}
        hosts = self._observer.expected()
        self._next_look_s = now_s + min(len(hosts) * GATHER_A_HOST_S, GATHER_MAX_S)
        later, self._later = self._later, {}
        for host in self._running.keys() - hosts:
            del self._running[host]
            self._reported.discard(host)
        return later | self._inbox.take_complete()

    def _note(self, reports: Mapping[str, Report], changed: Mapping[str, GuestChanged]) -> None:
        """Before any of them is reconciled: a guest that is missed on one host may run on another."""
        for host, report in reports.items():
            self._running[host] = {guest.instance_id for guest in report.guests if guest.state in RUNS}
            self._reported.add(host)
        for notice in changed.values():
            running = self._running.setdefault(notice.host, set())
            if notice.guest.state in RUNS:
                running.add(notice.guest.instance_id)
            elif notice.host not in reports:  # which of the two is older is not known: rather one place too many
                running.discard(notice.guest.instance_id)

    async def _look_at(self, changed: list[GuestChanged]) -> None:
        if not changed:
            return
        for notice in changed:
            self._hide(notice.host, notice.guest)
        resting = await self._store.read(rows.resting, [notice.guest.instance_id for notice in changed])
        by_host: dict[str, list[tuple[InstanceRow, GuestChanged]]] = {}
        for notice in changed:
            instance = resting.get(notice.guest.instance_id)
            if instance is not None:
                self._hidden.pop((notice.host, notice.guest.instance_id), None)
            if instance is not None and instance["host"] == notice.host and not instance["deleted"]:
                by_host.setdefault(notice.host, []).append((instance, notice))
        each = list(by_host.values())
        for some in (each[i : i + HOSTS_AT_ONCE] for i in range(0, len(each), HOSTS_AT_ONCE)):
            await turns.all_of(self._look_at_host(notices) for notices in some)

    async def _look_at_host(self, changed: list[tuple[InstanceRow, GuestChanged]]) -> None:
        with contextlib.suppress(Unreachable, TimeoutError):  # it will report again
            async with asyncio.timeout(TURN_S):
                for instance, notice in changed:
                    if not await self._settle(instance, notice.guest):
                        self._inbox.keep_changed(instance["id"], notice)

    async def compare(self, report: Report) -> None:
        """Reconcile what can be healed on that host. What the report says is a hint; the host is asked again."""
        self._note({report.host: report}, {})
        await self._compare([report])

    async def _compare(self, reports: list[Report]) -> None:
        """What is read may have changed until a host has its turn; each remedy looks whether it has."""
        facts = await self._store.read(rows.facts, reports)
        for some in (reports[i : i + HOSTS_AT_ONCE] for i in range(0, len(reports), HOSTS_AT_ONCE)):
            await turns.all_of(self._reconcile(report, facts) for report in some)

    async def _reconcile(self, report: Report, facts: GuestRows) -> bool:
        """False: it was not compared to the end."""
        guests = {guest.instance_id: guest for guest in report.guests}
        deferred_cleanup = {instance["id"]: instance for instance in facts.deferred_cleanup.get(report.host, ())}
        try:
            async with asyncio.timeout(TURN_S):
                for instance in facts.placed.get(report.host, ()):
                    guest = guests.get(instance["id"], Guest(instance["id"], GuestState.ABSENT))
                    if instance["id"] in facts.busy:
                        self._hide(report.host, guest)
                    elif guest.state is GuestState.PAUSED and instance_was_lost(instance):
                        await self._end_doubtful(instance, report.host)
                    elif not await self._settle(instance, guest):
                        self._later[report.host] = report
                at_work = facts.busy.union(deferred_cleanup)
                for guest in guests.values():
                    if guest.instance_id in facts.known and guest.instance_id not in at_work:
                        await self._end_unexpected(report.host, facts.known[guest.instance_id], guest)
                for instance_id in report.admitted:
                    if instance_id in facts.known and instance_id not in facts.busy:
                        await self._dismiss(report.host, facts.known[instance_id])
                for leftover in deferred_cleanup.values():  # no report tells of a disk without a guest
                    await self._remove(report.host, leftover)
        except (Unreachable, TimeoutError) as error:  # its next report is the next try; the other hosts do not wait
            because = error.reason if isinstance(error, Unreachable) else f"it took longer than {TURN_S:.0f} s"
            log.info("comparison of a host postponed", host=report.host, because=because)
            return False
        return True

    def _hide(self, host: str, guest: Guest) -> None:
        """A saga is, or may be, at work on it: what the host said of it is looked at when that has ended. One that runs
        is as a saga that succeeds leaves it."""
        if guest.state is GuestState.RUNNING:
            self._hidden.pop((host, guest.instance_id), None)
        elif len(self._hidden) < HIDDEN_MAX:
            self._hidden[host, guest.instance_id] = guest

    async def _look_at_all_hidden(self) -> None:
        """At what was hidden by a saga that has ended. The host that said it may not say it again for a minute."""
        if not self._hidden:
            return
        resting, busy = await self._store.read(rows.resting_and_busy, {instance_id for _, instance_id in self._hidden})
        by_host: dict[str, list[tuple[InstanceRow, Guest]]] = {}
        for (host, instance_id), guest in list(self._hidden.items()):
            if instance_id not in busy:
                del self._hidden[host, instance_id]
                if instance_id in resting:
                    by_host.setdefault(host, []).append((resting[instance_id], guest))
        each = list(by_host.items())
        for some in (each[i : i + HOSTS_AT_ONCE] for i in range(0, len(each), HOSTS_AT_ONCE)):
            await turns.all_of(self._look_at_hidden(host, guests) for host, guests in some)

    async def _look_at_hidden(self, host: str, guests: list[tuple[InstanceRow, Guest]]) -> None:
        with contextlib.suppress(Unreachable, TimeoutError):  # it will report again
            async with asyncio.timeout(TURN_S):
                for instance, guest in guests:
                    if instance["host"] != host:
                        await self._end_unexpected(host, instance, guest)
                    elif not instance["deleted"] and not await self._settle(instance, guest):
                        self._hide(host, guest)

    async def _end_doubtful(self, instance: InstanceRow, host: str) -> None:
        """Paused, on a host that was declared gone in the middle of a move: perhaps the rest of a migration, whose
        guest has run elsewhere since. It is never resumed; its disk stays."""
        generation = await self._store.run(instances.raise_fence, instance["id"], instance["fence"])
        if generation is not None:
            with contextlib.suppress(StepFailed, Stale, NotYet):
                timeout_s = self._settings.command_timeout_s
                await self._command(host, instance["id"], generation, Stop(0.0), timeout_s)

    def _stranger_remedy(self, instance: InstanceRow, host: str, guest: Guest) -> UnexpectedGuestRemedy:
        return unexpected_guest_remedy(
            instance["deleted"],
            instance["vm_state"],
            instance["host"],
            host,
            guest,
            is_returning=host in self._admission.returning,
        )

    async def _reconcile_all(self, report: Report) -> tuple[bool, GuestRows]:
        self._note({report.host: report}, {})
        facts = await self._store.read(rows.facts, [report])
        return await self._reconcile(report, facts), facts

    async def _settle(self, instance: InstanceRow, reported: Guest) -> bool:
        """False: it is too early to decide."""
        looks_right = remedy(instance["vm_state"], None, "", reported) is Remedy.NOTHING
        if looks_right and instance["power_state"] == POWER[reported.state]:
            return True
        try:
            answer = await send(
                self._bus,
                instances.host_of(instance),
                of_instance(instance["id"]),
                0,
                Inspect(),
                self._settings.command_timeout_s,
            )
        except (StepFailed, Stale, NotYet):
            return True  # it will report again
        guest = answer.guest
        found = remedy(instance["vm_state"], instance["ran_boot_id"], answer.boot_id, guest)
        if found in MISSED:
            if not self._has_heard_all():
                return False
            if (elsewhere := await self._elsewhere(instance)) is not None:
                await self._stays(instance, *elsewhere)
                return True
        await self._store.run(rows.apply, instance, found, guest, answer.boot_id, self._pause_us)
        return True

    async def _stays(self, instance: InstanceRow, host: str, state: GuestState | None) -> None:
        """It is on that host, not where its row says. A paused one is the rest of a migration: the
        next report of that host ends it."""
        if state is GuestState.PAUSED:
            return
        if await self._store.run(instances.raise_fence, instance["id"], instance["fence"]) is not None:
            await self._alarm(host, instance)

    def _has_heard_all(self) -> bool:
        """Whether no host is left that might have a guest that its own host misses. A dead host never reports, and
        is not waited for any longer than a control that has just begun."""
        return self._observer.age_s() > LISTENS_FIRST_S or self._reported >= self._observer.expected()

    async def _elsewhere(self, instance: InstanceRow) -> tuple[str, GuestState | None] | None:
        """Another host that has that guest, and how. One that said so and does not answer now counts: to start it a
        second time is worse than not to start it."""
        found = {host for host, running in self._running.items() if instance["id"] in running}
        waiting = self._inbox.complete().items()
        found |= {host for host, report in waiting if runs_in(report, instance["id"])}
        for host in sorted(found):
            if host != instance["host"]:
                state = await self._state(host, instance["id"])
                if state is None or state in RUNS:
                    return host, state
        return None

    async def _end_unexpected(self, host: str, instance: InstanceRow, reported: Guest) -> None:
        if self._stranger_remedy(instance, host, reported) is UnexpectedGuestRemedy.NOTHING:
            return
        try:
            answer = await send(
                self._bus, host, of_instance(instance["id"]), 0, Inspect(), self._settings.command_timeout_s
            )
            guest = answer.guest
            found = self._stranger_remedy(instance, host, guest)
            if found is UnexpectedGuestRemedy.NOTHING:
                return
            generation = await self._store.run(instances.raise_fence, instance["id"], instance["fence"])
            if generation is None:
                return  # something has begun meanwhile: it will see to it
            if found is UnexpectedGuestRemedy.ALARM:
                await self._alarm(host, instance)
                return
            log.info("removing a leftover guest", host=host, instance=instance["id"], remedy=found.value)
            for verb in ENDINGS[found]:
                await self._command(host, instance["id"], generation, verb, self._settings.command_timeout_s)
        except NotYet:
            return  # the host is at work on that very guest
        except (StepFailed, Stale) as fault:
            log.info("removal of a leftover guest postponed", host=host, instance=instance["id"], because=fault.reason)

    async def _remove(self, host: str, instance: DeferredCleanupRow) -> None:
        """The instance was deleted while its host was away."""
        generation = await self._store.run(instances.raise_fence, instance["id"], instance["fence"])
        if generation is None:
            return  # another control sees to it
        try:
            timeout_s = self._settings.long_command_timeout_s
            await self._command(host, instance["id"], generation, Remove(instance["root_pool"] or ""), timeout_s)
        except (StepFailed, Stale, NotYet) as fault:  # its next report is the next try
            log.info("deferred cleanup postponed", host=host, instance=instance["id"], because=repr(fault))
            return
        log.info(
            "leftover guest removed", host=host, instance=instance["id"], remedy=UnexpectedGuestRemedy.REMOVE.value
        )
        await self._store.run(instances.forget_deferred_cleanup, instance["id"])

    async def _dismiss(self, host: str, instance: InstanceRow) -> None:
        """A migration was undone while its destination was away: it expects the guest still."""
        generation = await self._store.run(instances.raise_fence, instance["id"], instance["fence"])
        if generation is not None:
            with contextlib.suppress(StepFailed, Stale, NotYet):
                timeout_s = self._settings.command_timeout_s
                await self._command(host, instance["id"], generation, Dismiss(), timeout_s)

    async def _command(
        self, host: str, instance_id: str, generation: int, verb: VerbWithReply[Any], timeout_s: float
    ) -> None:
        """Outside any saga. Where the host has obeyed a higher generation than the database knows of (restored from a
        backup), the next try goes on above it."""
        try:
            await send(self._bus, host, of_instance(instance_id), generation, verb, timeout_s)
        except Stale as fault:
            await self._store.run(instances.lift_fence, instance_id, generation, fault.generation)
            raise

    async def _alarm(self, host: str, instance: InstanceRow) -> None:
        if (host, instance["id"]) in self._alarmed:
            return
        if len(self._alarmed) >= ALARMED_MAX:
            self._alarmed.clear()
        self._alarmed.add((host, instance["id"]))
        place = instance["host"]
        reason = f"it runs on {host} although its place is {place or 'nowhere'}; nothing was ended"
        if place and await self._state(place, instance["id"]) is GuestState.RUNNING:
            reason = (
                f"it runs on {host} and on {place} at once, and both write to its disk; nothing was ended: "
                "find out which is the right one, and end the other on its host"
            )
        log.error("guest on the wrong host", host=host, instance=instance["id"], because=reason)
        await self._store.run(rows.record_alarm, instance, reason, (host, place))

    async def _state(self, host: str, instance_id: str) -> GuestState | None:
        """Of that guest, as the host says now; None when it does not answer."""
        try:
            answer = await send(
                self._bus, host, of_instance(instance_id), 0, Inspect(), self._settings.command_timeout_s
            )
        except (Unreachable, StepFailed, Stale, NotYet):
            return None
        return answer.guest.state
