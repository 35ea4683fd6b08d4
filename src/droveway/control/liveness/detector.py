"""The failure detector: concludes by the table in domain/liveness.py from heartbeats, second opinions and storm holds.

One control at a time is active (the lease of the failure detector); the others receive the same and wait. Verdicts are
handed over to be written; the detector itself never waits for the store: a database that stalls delays rows alone.
"""

from __future__ import annotations

import asyncio
import math
from collections import Counter
from collections.abc import Callable, Iterable
from itertools import islice

import msgspec
import structlog

from droveway.control.engine.nudges import wait
from droveway.control.liveness.holds import Holds, has_service_up
from droveway.control.liveness.input_check import InputCheck, NoInput
from droveway.control.liveness.observer import LivenessSettings, Observer
from droveway.domain import liveness, service_kinds
from droveway.domain.faults import Fault
from droveway.domain.liveness import UP, HostObservation, Service, Signal, State
from droveway.domain.model import of_host
from droveway.ports.bus import Command, ControlBus, Ping, Reach
from droveway.ports.clock import Clock
from droveway.ports.replies import ReachResult
from droveway.store.fleet.hosts import COMPUTE
from droveway.store.fleet.services import Verdict
from droveway.store.rows import ServiceRow

log = structlog.get_logger("droveway.liveness")
ASKS_MAX = 1024  # second opinions at once
SETTLED_RARER = 20  # how much more rarely those are asked that are down already
WATCHED_AT_ONCE, SETTLED_AT_ONCE = 1500, 8  # hosts in one look
LOOK_MAX_S = 0.25
REACH_SHARE = 0.3  # of the time for a second opinion, twice: what a witness finds out must still arrive
FLAP_US = 60_000_000
UNDECIDED = {Signal.WAIT, Signal.SILENT, Signal.ANSWERED, Signal.STORM}
SILENCES = {
    Signal.SILENT,
    Signal.ANSWERED,
    Signal.STORM,
    Signal.UNHEARD,
    Signal.REACHED,
    Signal.GONE,
    Signal.DIED_EARLIER,
}
OPEN = UP | {State.HUNG}  # what time alone may change


class DetectorCounters(msgspec.Struct):
    """Counted since this control started."""

    entered: Counter[str] = msgspec.field(default_factory=Counter)  # states, as they are recorded
    flaps: int = 0  # up again within a minute of having gone down
    asks: int = 0
    refuted: int = 0  # silences that a second opinion explained


class FailureDetector:
    def __init__(
        self,
        observer: Observer,
        bus: ControlBus,
        clock: Clock,
        settings: LivenessSettings,
        deliver: Callable[[Verdict], None],
    ) -> None:
        self._observer, self._bus, self._clock, self._deliver = observer, bus, clock, deliver
        self.timing = settings.timing
        self.input = InputCheck(bus, observer, clock, self.timing)
        self.is_active = False
        self.looks = 0  # rises while this detector runs and has input
        self.tally = DetectorCounters()
        self.holds = Holds(observer, self.timing)
        self.no_input: NoInput | None = None  # why nothing is concluded
        self.no_input_since_s = 0.0  # by the machine's clock
        self._looked_s = clock.monotonic_s()
        self._watched: dict[str, None] = {}  # hosts whose verdict depends on time, the next first
        self._settled: dict[str, None] = {}  # hosts that are down by silence, likewise
        self._to_ask: dict[str, HostObservation] = {}
        self._watch_due_s = 0.0  # when they are looked at next, by the machine's clock
        self._recorded: dict[tuple[str, str], State] = {}
        self._went_down_us: dict[tuple[str, str], int] = {}
        self._asking: dict[str, asyncio.Task[None]] = {}

    # -- duty ---------------------------------------------------------------------------------------------------------
    def begin(self, rows: Iterable[ServiceRow]) -> None:
        """Active from now on, beginning with what is recorded; every host has one `service_down_time` of grace."""
        rows = list(rows)
        self.learn(rows)
        self._observer.restore(rows)
        self._grant()
        self.is_active = True

    def _grant(self, heard_within_s: float = math.inf, *, undecided: bool = False) -> None:
        self._observer.grant(heard_within_s, undecided=undecided)
        self.holds.clear()
        if heard_within_s == math.inf:
            self._settled.clear()

    def learn(self, rows: Iterable[ServiceRow], waiting: Iterable[Verdict] = ()) -> None:
        """What is recorded now, and what is on its way there."""
        rows = list(rows)
        self._observer.learn(rows)
        self._recorded = {service_kinds.address_of(row["host"], row["binary"]): State(row["state"]) for row in rows}
        self._recorded |= {(verdict.host, verdict.service): verdict.state for verdict in waiting}
        for seen in self._observer.observations():
            host = seen.host
            if any(_written(one.state) is not self._recorded.get((host, name)) for name, one in seen.services.items()):
                self._observer.add_news(host)

    @property
    def all_are_silent(self) -> bool:
        """No heartbeat of any host. With a membership driver none need arrive here."""
        return not self._observer.defers and self._observer.all_silent(self._observer.now_s())

    def end(self) -> None:
        """Another control is the failure detector; second opinions under way are dropped."""
        self.is_active = False
        self._grant()

    async def run(self) -> None:
        """Until cancelled: look several times an interval, and at once when there is news; and listen for the echo."""
        async with asyncio.TaskGroup() as group:
            group.create_task(self.input.run(), name="InputCheck")
            group.create_task(self._keep_looking(), name="looks")

    async def _keep_looking(self) -> None:
        try:
            while True:
                self.look()
                await wait(self._observer.woken, max(0.0, self._watch_due_s - self._clock.monotonic_s()))
        finally:
            for task in self._asking.values():
                task.cancel()

    # -- looking ------------------------------------------------------------------------------------------------------
    def look(self) -> None:
        """Evaluate all that may have changed: hosts with news, and several times an interval all hosts whose verdict
        depends on time. News comes with every heartbeat where many hosts start at once."""
        self._look_at_input()
        now_s, monotonic_s = self._observer.now_s(), self._clock.monotonic_s()
        is_due = monotonic_s >= self._watch_due_s
        if is_due:
            self._watch_due_s = monotonic_s + min(self.timing.report_interval_s / 4, LOOK_MAX_S)
        if not self.is_active:
            return
        if self.no_input is None and not (self.holds and self.all_are_silent):
            self.looks += 1
        hosts = self._observer.take_news()
        if is_due:
            if not self._observer.defers:
                self._find_silent(now_s)
                self._find_storms(now_s)
            hosts += self._next_of_watched()
            hosts += self._next_of_settled()
        self._to_ask = {}
        for host in hosts:
            seen = self._observer.observation(host)
            if seen is not None and self._evaluate(seen, now_s):
                self._watched[host] = None
            else:
                self._watched.pop(host, None)
        self._ask_the_most_overdue(now_s)

    def _next_of_watched(self) -> list[str]:
        """In turn, and a bounded number at once."""
        hosts = list(islice(self._watched, WATCHED_AT_ONCE))
        if len(self._watched) > WATCHED_AT_ONCE:
            for host in hosts:
                self._watched[host] = self._watched.pop(host)
        return hosts

    def _next_of_settled(self) -> list[str]:
        """Some of those that are down by silence: now and then they are asked again."""
        hosts = list(islice(self._settled, SETTLED_AT_ONCE))
        for host in hosts:
            self._settled[host] = self._settled.pop(host)
        return hosts

    def _look_at_input(self) -> None:
        """Without input the detector's time stands still, and then every host has one `service_down_time` to send a
        heartbeat; likewise after a silence of all, and after it was itself stopped for so long that what was sent
        meanwhile may have been dropped. Granted only to hosts heard shortly before: where a broker stalls every few
        seconds, or one of two hosts beats too slowly, a host that is off would never be found down. After a longer loss
        to all without a verdict: they may have come back meanwhile. After a short stop one heartbeat of each may have
        been lost that would have come by then."""
        monotonic_s, interval_s = self._clock.monotonic_s(), self.timing.report_interval_s
        stopped_s = monotonic_s - self._looked_s
        was_stopped = stopped_s > self.timing.suspect_after_s
        silence_ended = self._observer.take_silence_ended()
        before, self.no_input = self.no_input, self.input.missing(self._observer.now_s())
        if self.no_input is not None or before is not None:
            self._observer.credit(monotonic_s - self._looked_s)
        self._looked_s = monotonic_s
        for since_s, until_s in self.input.take_paused():  # too short for all that
            self._observer.discount(since_s, until_s)
        if self.no_input is not None and before is None:
            self.no_input_since_s = monotonic_s
            log.warning("no input: failure detection suspended, the last state is kept", because=self.no_input.reason)
        elif self.no_input is None and before is not None:
            lost_s = monotonic_s - self.no_input_since_s
            log.info("input has returned: failure detection continues", after_s=round(lost_s, 1))
            self._observer.input_restored()
            is_long = lost_s > self.timing.service_down_time_s
            self._grant(self.timing.service_down_time_s + self.timing.storm_hold_time_s, undecided=is_long)
        elif silence_ended or was_stopped:
            self._grant(self.timing.service_down_time_s + self.timing.storm_hold_time_s)
        elif stopped_s > interval_s:
            now_s = self._observer.now_s()
            self._observer.discount(now_s - interval_s, now_s)

    def _find_silent(self, now_s: float) -> None:
        for host in self._observer.find_silent(now_s, self.timing.suspect_after_s):
            self._watched[host] = None

    def _find_storms(self, now_s: float) -> None:
        self.holds.look(now_s)

    # -- verdicts -----------------------------------------------------------------------------------------------------
    def _evaluate(self, seen: HostObservation, now_s: float) -> bool:
        """Whether time alone may change it."""
        is_open = False
        for binary, service in list(seen.services.items()):
            signal, reason = self._read(seen, binary, now_s)
            state = liveness.next_state(service.state, signal)
            if state is State.HELD:
                reason += "; held: too many fell silent at once"
            if state is not service.state:
                self._change(seen.host, binary, service, state, reason)
            elif state in {State.SUSPECT, State.HELD}:
                self._observer.set_verdict(service, state, reason)
            self._record(seen.host, binary, service)
            is_open = is_open or binary in seen.stalled_since_s or (signal in UNDECIDED and state in OPEN)
            if signal in SILENCES and state is not State.STOPPED and not self._observer.defers:
                self._to_ask[seen.host] = seen
        if self._observer.is_silent(seen.host) and not has_service_up(seen):
            self._observer.settle(seen.host)
            self._settled[seen.host] = None
        elif seen.silent_found_s is None:
            self._settled.pop(seen.host, None)
        return is_open or self._observer.is_silent(seen.host)

    def _read(self, seen: HostObservation, binary: str, now_s: float) -> tuple[Signal, str]:
        if not self._observer.defers:
            return liveness.read(seen, binary, now_s, self.timing)
        opinion = self._observer.opinion(seen.host, binary)
        return (Signal.WAIT, "it is no member yet") if opinion is None else (opinion.signal, opinion.reason)

    def _change(self, host: str, binary: str, service: Service, state: State, reason: str) -> None:
        was = service.state
        if was is State.SUSPECT and state is State.ALIVE:
            self.tally.refuted += 1
        is_new = (was in UP) is not (state in UP) or was is State.EXPECTED or state not in UP
        self._observer.set_verdict(service, state, reason, self._clock.now_us() if is_new else None)
        log.info("service state changed", host=host, service=binary, state=state.value, was=was.value, because=reason)

    def _record(self, host: str, binary: str, service: Service) -> None:
        """Hand over what differs from the row. Suspect and held are not written: nothing is concluded yet."""
        state = _written(service.state)
        recorded = self._recorded.get((host, binary), State.EXPECTED)
        if state is State.EXPECTED or state is recorded:
            return
        self._recorded[host, binary] = state
        now_us = self._clock.now_us()
        self.tally.entered[state.value] += 1
        if state in UP:
            self.tally.flaps += now_us - self._went_down_us.pop((host, binary), -FLAP_US) < FLAP_US
        elif recorded in UP:
            self._went_down_us[host, binary] = now_us
        self._deliver(Verdict(host, binary, state, service.reason, service.since_us))

    # -- second opinions ----------------------------------------------------------------------------------------------
    def _ask_the_most_overdue(self, now_s: float) -> None:
        """Hosts never asked come first, then those asked longest ago; those with a verdict, rarely."""
        free = ASKS_MAX - len(self._asking)
        if self.no_input is not None or free <= 0:
            return
        again_s = self.timing.service_down_time_s / 2
        due = [
            seen
            for seen in self._to_ask.values()
            if seen.host not in self._asking
            and (
                seen.asked_s is None
                or now_s - seen.asked_s >= again_s * (1 if self._observer.is_silent(seen.host) else SETTLED_RARER)
            )
        ]
        due.sort(key=lambda seen: float("-inf") if seen.asked_s is None else seen.asked_s)
        for seen in due[:free]:
            self._ask(seen, now_s)

    def _ask(self, seen: HostObservation, now_s: float) -> None:
        """Each of its services whether it is there, and another host whether it reaches its hypervisor."""
        self._observer.note_asked(seen, now_s)
        self.tally.asks += 1
        task = asyncio.get_running_loop().create_task(self._opinions(seen), name=f"second opinion on {seen.host}")
        self._asking[seen.host] = task
        task.add_done_callback(lambda _: self._asking.pop(seen.host, None))

    async def _opinions(self, seen: HostObservation) -> None:
        """That there is no answer counts only if the question could arrive: an echo sent with it, and one sent once no
        answer has come, must return."""
        asked_s, timeout_s = seen.asked_s, self.timing.ask_timeout_s
        could_ask = asyncio.ensure_future(self.input.confirm())
        names = [name for name, one in seen.services.items() if one.state is not State.STOPPED]
        pings = asyncio.gather(*(self._ping(seen.host, name, timeout_s) for name in names))
        reach = asyncio.ensure_future(self._reach(seen.host, timeout_s))
        try:
            unanswered = dict(zip(names, await pings, strict=True))
            reached, reach_reason = await reach if all(unanswered.values()) else (None, "")
            is_valid = not any(unanswered.values()) or (await could_ask and await self.input.confirm())
        finally:
            for asked in (pings, reach, could_ask):
                asked.cancel()
        if seen.asked_s != asked_s or self.no_input is not None:
            return  # a heartbeat arrived meanwhile, or there is no input
        self._observer.take_opinions(seen, unanswered, reached, reach_reason, is_valid=is_valid)

    async def _ping(self, host: str, service: str, timeout_s: float) -> str:
        """Why it does not answer; empty when it does."""
        try:
            await self._bus.command(host, Command(of_host(host), 0, Ping()), timeout_s, service)
        except Fault as fault:
            return fault.reason
        return ""

    async def _reach(self, host: str, timeout_s: float) -> tuple[bool | None, str]:
        uri, peer = self._observer.inbox.peer_uri(host), self._witness_of(host)
        if not uri or peer is None:
            return None, ""
        question = Reach(uri, timeout_s * REACH_SHARE, self._reference_uri(host, peer))
        try:
            answer = await self._bus.command(peer, Command(of_host(peer), 0, question), timeout_s)
        except Fault:
            return None, ""
        if not isinstance(answer, ReachResult) or answer.is_cut_off:
            return None, ""
        if answer.reached:
            return True, f"{peer} reaches its hypervisor: the host is there"
        return False, f"{peer} does not reach its hypervisor either: {answer.reason}"

    def _reference_uri(self, host: str, observer_host: str) -> str:
        """Of a third host that was heard just now: its machine is there, whatever the state of its agent."""
        others = (one.host for one in self._observer.latest_first() if one.host not in {host, observer_host})
        return next((uri for other in others if (uri := self._observer.inbox.peer_uri(other))), "")

    def _witness_of(self, host: str) -> str | None:
        """The host heard last whose agent can answer."""
        for seen in self._observer.latest_first():
            compute = seen.services.get(COMPUTE)
            if seen.host != host and compute is not None and compute.connected and compute.state is State.ALIVE:
                return seen.host
        return None


def _written(state: State) -> State:
    return State.ALIVE if state in {State.SUSPECT, State.HELD} else state
