"""Every host has the networks that the rows say.

A host whose network agent is connected, and where an older revision is in force than the rows have, is told its plan:
whole, so nothing is lost that a message lost. One at a time a host; what does not answer is asked again, more and more
rarely. Two controls that do this at once tell a host the same: the revision is the fence.

A host for which nothing has changed is not asked. What another control told it in between, or a message that was very
late, may differ all the same: so a host that was passed over is asked a while later which revision it has.
"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping

import msgspec
import structlog

from droveway.control.engine.commands import send
from droveway.control.engine.nudges import Nudges, wait
from droveway.control.engine.saga import NotYet
from droveway.control.liveness.observer import Observer
from droveway.control.loops.plans import Plans, as_of_0
from droveway.domain.faults import Busy, Stale, StepFailed, Unreachable
from droveway.domain.model import of_host
from droveway.domain.network_change import between
from droveway.domain.network_plan import HostNetworks
from droveway.domain.service_kinds import NETWORK
from droveway.ports.bus import (
    ApplyNetworks,
    ChangeNetworks,
    ControlBus,
    ReadNetworks,
    SendGuestData,
)
from droveway.ports.clock import Clock
from droveway.ports.replies import NetworksApplied
from droveway.ports.verb import VerbWithReply
from droveway.store.compute import guest_data
from droveway.store.engine.transaction import Store
from droveway.store.network import changes, in_force

log = structlog.get_logger("droveway.networks")
INTERVAL_S = 5.0  # between two looks that nobody asked for
AT_ONCE = 16  # hosts that are told at once
TIMEOUT_S = 10.0  # of one answer; an agent that needs longer says so
AGAIN_S, AGAIN_MAX_S = 0.2, 10.0
CONFIRM_S = 15.0  # after which a host that was passed over is asked what it has
CHANGE_MAX = 1_000  # things that differ in what is told as a change
FAILED_LOOK_S = 2.0  # between two looks at a host where something is not in force: its agent tries by itself


class _Known(msgspec.Struct):
    """What is known of one host by this control. `by`: the process that answered."""

    by: tuple[str, str]
    answer: NetworksApplied
    plan: HostNetworks | None = None  # the last that it took, as of revision 0; None: it may have taken another
    taken: int = -1  # the revision of that one
    looked_s: float = 0.0
    passed_over_s: float | None = None  # since when it is only assumed that it still has that plan


class NetworksLoop:
    def __init__(
        self,
        store: Store,
        bus: ControlBus,
        observer: Observer,
        nudges: Nudges,
        clock: Clock,
        plans: Plans,
    ) -> None:
        self._store, self._bus, self._observer, self._nudges, self._clock = store, bus, observer, nudges, clock
        self._plans, self._newest = plans, -1
        self._known: dict[str, _Known] = {}
        self._working: dict[str, asyncio.Task[None]] = {}
        self._again: dict[str, tuple[float, float]] = {}  # when a host that failed is asked again, and the pause before
        self._places = asyncio.Semaphore(AT_ONCE)
        self._woken = asyncio.Event()

    async def run(self) -> None:
        """Until cancelled."""
        topics = (changes.CHANGED, f"service:{NETWORK}")
        with self._nudges.listen(*topics, event=self._woken):
            try:
                while True:
                    await wait(self._woken, await self._once())
            finally:
                for task in self._working.values():
                    task.cancel()

    async def _once(self) -> float:
        """Begin what is due; how long until the next look."""
        connected = self._observer.connected(NETWORK)
        processes = {host: (hello.boot_id, hello.address) for host, hello in connected.items()}
        for host, known in list(self._known.items()):
            if known.by != processes.get(host) and host not in self._working:
                del self._known[host]  # another process may know less
                self._plans.forget(host)
        if not connected:
            return INTERVAL_S
        try:
            self._newest, plans = await self._plans.newest(self._revisions())
            due = self._due(self._newest, processes)
            plans = await self._plans_of(due, plans)
            asked = self._unconfirmed()
            due -= await self._note_unchanged(plans, asked) - asked
        except Busy as fault:
            log.warning("comparison of networks postponed: the store is busy", because=fault.reason)
            return AGAIN_MAX_S / 2
        for host in sorted(due):
            task = asyncio.create_task(self._bring(host, processes[host], plans.get(host)), name=f"networks of {host}")
            self._working[host] = task
            task.add_done_callback(lambda _, host=host: self._ended(host))  # type: ignore[misc]
        now_s = self._clock.monotonic_s()
        pauses = [at_s - now_s for host, (at_s, _) in self._again.items() if host in connected and at_s > now_s]
        pauses += [FAILED_LOOK_S for known in self._known.values() if known.answer.failed]
        idle = [known for host, known in self._known.items() if host not in self._working and host not in self._again]
        pauses += [one.passed_over_s + CONFIRM_S - now_s for one in idle if one.passed_over_s is not None]
        return max(0.02, min([INTERVAL_S, *pauses]))

    def _ended(self, host: str) -> None:
        task = self._working.pop(host)
        if not task.cancelled() and (error := task.exception()) is not None:
            log.error("a bug: the networks of a host are not looked after", host=host, exc_info=error)
            self._again[host] = self._clock.monotonic_s() + AGAIN_MAX_S, AGAIN_MAX_S
        known = self._known.get(host)
        if known is None or host in self._again or known.answer.failed or known.answer.revision < self._newest:
            self._woken.set()  # there is more to be done with it

    def _due(self, newest: int, by: Mapping[str, tuple[str, str]]) -> set[str]:
        now_s = self._clock.monotonic_s()
        found = set()
        unconfirmed = self._unconfirmed()
        for host, process in by.items():
            known = self._known.get(host)
            is_known = known is not None and known.by == process
            looks = is_known and known.answer.failed and now_s - known.looked_s >= FAILED_LOOK_S  # type: ignore[union-attr]
            is_old = not is_known or known.answer.revision < newest or looks or host in unconfirmed  # type: ignore[union-attr]
            if is_old and host not in self._working and now_s >= self._again.get(host, (0.0, 0.0))[0]:
                found.add(host)
        return found

    def _unconfirmed(self) -> set[str]:
        """Those that were passed over, and long ago."""
        long_ago_s = self._clock.monotonic_s() - CONFIRM_S
        return {
            host
            for host, known in self._known.items()
            if known.passed_over_s is not None and known.passed_over_s <= long_ago_s
        }

    def _revisions(self) -> dict[str, int]:
        """Which revision is in force on those that have taken a plan before, and may have nothing new to be told."""
        idle = self._known.keys() - self._working.keys()
        return {host: self._known[host].answer.revision for host in idle if self._known[host].plan is not None}

    async def _plans_of(self, due: set[str], read: Mapping[str, HostNetworks]) -> dict[str, HostNetworks]:
        """Of those that are due; `read`: what is known of them."""
        asked = sorted(due & self._revisions().keys() - read.keys())
        found = {host: plan for host, plan in read.items() if host in due}
        return found | await self._plans.of(asked) if asked else found

    async def _note_unchanged(self, plans: Mapping[str, HostNetworks], asked: set[str]) -> set[str]:
        """Those of which the newest revision says nothing new: it is written down, and they are not told. `asked`:
        they will be, what they have."""
        same = {
            host: plan.revision
            for host, plan in plans.items()
            if not self._known[host].answer.failed and as_of_0(plan) == self._known[host].plan
        }
        if same:
            least = min(same.values())
            await self._store.run(in_force.raise_to, same, least)
            for host in same:
                known = self._known[host]
                known.answer = msgspec.structs.replace(known.answer, revision=least)
                if host not in asked:
                    self._again.pop(host, None)
                if known.passed_over_s is None:
                    known.passed_over_s = self._clock.monotonic_s()
        return set(same)

    # -- one host -----------------------------------------------------------------------------------------------------
    async def _bring(self, host: str, by: tuple[str, str], plan: HostNetworks | None) -> None:
        async with self._places:
            pause_s = self._again.get(host, (0.0, 0.0))[1]
            try:
                await self._apply(host, by, plan)
                self._again.pop(host, None)
                return
            except NotYet as fault:
                pause_s = fault.after_s / 2
            except (Unreachable, StepFailed, Busy) as fault:
                pause_s = min(max(2 * pause_s, AGAIN_S), AGAIN_MAX_S)
                log.info("networks not in force", host=host, again_s=pause_s, because=fault.reason)
            self._again[host] = self._clock.monotonic_s() + pause_s, pause_s

    async def _apply(self, host: str, by: tuple[str, str], plan: HostNetworks | None) -> None:
        known = self._known.get(host)
        if known is None or known.by != by:  # first what it has for networks: others are told of it, and so is itself
            known = _Known(by, await self._ask(host, 0, ReadNetworks()))
            await self._record(host, known)
        elif known.answer.failed or known.passed_over_s is not None:
            await self._look(host, known)
        if plan is None:
            plan = (await self._plans.of([host]))[host]
        if known.answer.revision < plan.revision or known.plan is None:
            before, known.plan = known.plan, None  # until it has answered
            try:
                answer = await self._send_plan(host, known, before, plan)
            except Stale as fault:
                await self._store.run(in_force.lift, fault.generation)
                raise NotYet(AGAIN_S, f"{host} has seen a newer plan of networks than this database") from None
            known.answer = await self._send_guest_data(host, answer)
            known.plan, known.taken = as_of_0(plan), plan.revision
            known.looked_s, known.passed_over_s = self._clock.monotonic_s(), None
            await self._record(host, known)

    async def _send_plan(
        self, host: str, known: _Known, before: HostNetworks | None, plan: HostNetworks
    ) -> NetworksApplied:
        """What differs from the plan `before` that it has, where that is little; else, or where it has another, all."""
        if before is not None and known.answer.takes_changes:
            change = between(msgspec.structs.replace(before, revision=known.taken), plan)
            if change.size <= CHANGE_MAX:
                answer = await self._ask(host, plan.revision, ChangeNetworks(change))
                if answer.revision == plan.revision:
                    return answer
        return await self._ask(host, plan.revision, ApplyNetworks(plan))

    async def _look(self, host: str, known: _Known) -> None:
        """Which revision it has, and what of it is not in force."""
        answer = await self._ask(host, 0, ReadNetworks())
        known.looked_s, known.passed_over_s = self._clock.monotonic_s(), None
        if answer.revision != known.taken or answer.begun >= 0:
            known.plan = None
        elif known.plan is not None:  # no newer one says anything else
            answer = msgspec.structs.replace(answer, revision=known.answer.revision)
        if answer != known.answer:
            known.answer = answer
            await self._record(host, known)

    async def _send_guest_data(self, host: str, answer: NetworksApplied) -> NetworksApplied:
        """What its guests are told of themselves, as far as the host lacks it: a port whose guest would find nothing is
        not in force yet. It is told of those alone that have a port there, whatever it asks for."""
        while answer.wants:
            data = await self._store.read(guest_data.data_at, host, answer.wants)
            if not data:
                break  # they have left in the meantime: the next plan says so
            before, answer = answer, await self._ask(host, answer.revision, SendGuestData(data))
            if not set(answer.wants) < set(before.wants):  # else this might go on for ever
                raise NotYet(AGAIN_S, f"{host} has not stored the metadata of its guests")
        return answer

    async def _record(self, host: str, known: _Known) -> None:
        answer = known.answer
        await self._store.run(
            in_force.record, host, answer.revision, answer.failed, answer.tunnel_address, answer.physical_networks
        )
        self._known[host] = known

    async def _ask(self, host: str, revision: int, verb: VerbWithReply[NetworksApplied]) -> NetworksApplied:
        return await send(self._bus, host, of_host(host), revision, verb, TIMEOUT_S, NETWORK)
