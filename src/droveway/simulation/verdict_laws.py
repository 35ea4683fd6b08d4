"""What must hold of every verdict: the truth of the world was such that it may be said."""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING, Any

from droveway.control.liveness.duty import LEASE_TTL_S
from droveway.control.loops.upkeep import RENEW_S
from droveway.domain.liveness import State
from droveway.domain.service_kinds import Address, address_of, row_of
from droveway.simulation.machines import LIVENESS
from droveway.simulation.network import LATE_MAX_S
from droveway.simulation.truth import (
    AGENT_DEAD,
    AGENT_HUNG,
    APART,
    ASK_LOST,
    BEAT_LOST,
    BROKER_AWAY,
    CONTROL_DEAD,
    CUT,
    CUT_OFF,
    DEAF,
    DECLARED,
    HEART_DEAD,
    HEART_HUNG,
    OFF,
    PARTED,
    SILENCE,
    STOPPED,
    What,
)
from droveway.store.fleet.hosts import COMPUTE
from droveway.store.fleet.services import CONTROL

if TYPE_CHECKING:
    from droveway.simulation.world import World


TIMING = LIVENESS.timing


# The windows in which a cause makes a verdict true.
WRITTEN_S = 3.0  # so long a verdict may wait for the store; and for as long as its control stood still, or its time


NEWS_S = LATE_MAX_S + 5.0  # news of a death may be late, and outrun by the next life of that agent


UNEXPLAINED_S = 1.5 * TIMING.report_interval_s  # of the time that a verdict needs: beats come at intervals


GRID_S = 0.5


VERDICTS_MAX = 4  # for each trouble of a host: dead, gone, hung, and back


# While there is a failure detector, a host that is off for that long is shown down: the lease of the last one must end,
# the next one grants a service_down_time, silence takes another, and there may be a hold.
SHOWN_DOWN_S = LEASE_TTL_S + 2 * RENEW_S + 3 * TIMING.service_down_time_s + TIMING.storm_hold_time_s


class RecordedStates:
    """What the lists say of each service, as it is recorded; and the law that no service is shown down without a cause.

    Each service is judged by what befell it and its host; what befell another one there explains nothing of it. A down
    of the judge must be explained by what truly happened (`Truth`) at some moment of the last WRITTEN_S:
    - dead, stopped: its agent had ended, or the bus had told of the end of its connection and of no new one, within
      NEWS_S; or, since a restarted heart does not know it yet, its agent was stopped for a service_down_time.
    - hung: its agent was stopped for service_hung_time.
    - not reporting, host gone: for a service_down_time no beat could be heard by the control that judged (the host off,
      its heart dead or stopped, the link cut, beats lost), and its agent could not answer (dead, stopped, cut, lost).
      That this control was deaf never counts. That it had a broker and received nothing counts only where too few hosts
      were well for a hold, or after it.
    - host gone: and it was off, or could not be reached by the others; or there was no third one by which the witness
      could have told that it was itself the one who is cut off.
    All but UNEXPLAINED_S of such a time must be covered. No service goes down more often than faults met it, and few
    verdicts follow from each. A control that has received no message yet gives no verdicts.
    """

    def __init__(self, world: World) -> None:
        self._world = world
        self._listed: dict[str, tuple[bool, float]] = {}  # whether up, and since when
        self._downs: Counter[str] = Counter()
        self._verdicts: Counter[str] = Counter()
        self._recorded: dict[str, list[tuple[float, State]]] = {}  # when each subject became what

    def take(self, control: str, subject: str, body: dict[str, Any]) -> None:
        """An event about a service was recorded by that control."""
        became = body.get("became")
        if became == "deleted":
            self._listed.pop(subject, None)
        if became not in {"up", "down"}:
            return
        self._world.counts[f"service judged {body['state']}"] += 1
        self._recorded.setdefault(subject, []).append((self._world.loop.time(), State(body["state"])))
        self._is_stable(subject)
        was_up, _ = self._listed.get(subject, (True, 0.0))
        if was_up is (became == "up") and subject in self._listed:
            return
        self._listed[subject] = (became == "up", self._world.loop.time())
        if became == "up":
            return
        host, binary = _address(subject)
        state, because = State(body["state"]), body["because"]
        process = self._world.controls.get(control)
        by_silence = binary not in CONTROL and state in {State.NOT_REPORTING, State.HOST_GONE}
        if by_silence and process is not None and process.bus.has_heard_nobody_for_s() > WRITTEN_S:
            self._world.broken(
                f"{control} has received no message since it started, and called {subject} {state.value}"
            )
        if binary in CONTROL:
            is_true = self._is_control_away(host)
        else:
            is_true = self._is_explained(control, host, binary, state)
            self._downs[subject] += 1
            if self._downs[subject] > self._world.truth.count(host, binary):
                self._world.broken(
                    f"{subject} was called down {self._downs[subject]} times, more often than it had cause"
                )
        if not is_true:
            self._world.broken(f"false down: {control} called {subject} {state.value} because {because}")

    def recorded_since(self, host: str, service: str, since_s: float) -> list[State]:
        """What it was recorded to be since then, if only for a moment."""
        return [state for at_s, state in self._recorded.get("/".join(row_of(host, service)), ()) if at_s >= since_s]

    def verdicts_on(self, host: str) -> int:
        """How many there were on its agent."""
        return self._verdicts[f"{host}/{COMPUTE}"]

    def _is_stable(self, subject: str) -> None:
        """A verdict changes only when evidence does."""
        self._verdicts[subject] += 1
        host, binary = _address(subject)
        most = VERDICTS_MAX * (1 + self._world.truth.count(host, binary))
        if self._verdicts[subject] > most:
            self._world.broken(f"{self._verdicts[subject]} verdicts on {subject}: more than its troubles explain")

    def _is_control_away(self, name: str) -> bool:
        now_s = self._world.loop.time()
        return self._world.truth.was(now_s - NEWS_S, now_s, (CONTROL_DEAD, name), (STOPPED, name))

    def _is_explained(self, control: str, host: str, service: str, state: State) -> bool:
        now_s = self._world.loop.time()
        whats: list[What] = [(STOPPED, control), (BROKER_AWAY, control)]
        stood_still_s = self._world.truth.length_s(now_s - 2 * NEWS_S, now_s, whats)
        steps = range(int((WRITTEN_S + stood_still_s) / GRID_S) + 1)
        return any(self._is_true(control, host, service, state, now_s - step * GRID_S) for step in steps)

    def _is_true(self, control: str, host: str, service: str, state: State, at_s: float) -> bool:
        truth = self._world.truth
        hung: list[What] = [(AGENT_HUNG, host, service)]
        unheard = self._unheard(control, host, at_s)
        has_ended = truth.was(
            at_s - NEWS_S, at_s, (OFF, host), (AGENT_DEAD, host, service), (PARTED, control, host, service)
        )
        match state:
            case State.DEAD | State.STOPPED:
                return has_ended or self._lasts(at_s, TIMING.service_down_time_s, hung)
            case State.HUNG:  # and it may have died of it
                was_hung = truth.was(at_s - NEWS_S, at_s, *hung)
                return was_hung and (has_ended or self._lasts(at_s, TIMING.service_hung_time_s, [*hung, *unheard]))
        unanswered: list[What] = [(AGENT_DEAD, host, service), *hung, (ASK_LOST, control, host, service), *unheard]
        unanswered = [what for what in unanswered if what[0] not in {HEART_DEAD, HEART_HUNG, BEAT_LOST, SILENCE}]
        down_time_s = TIMING.conclude_after_s
        if state is State.HOST_GONE and not self._may_be_gone(control, host, at_s):
            return False
        return self._lasts(at_s, down_time_s, unheard) and truth.was(at_s - down_time_s, at_s, *unanswered)

    def _may_be_gone(self, control: str, host: str, at_s: float) -> bool:
        since_s, truth, hosts = at_s - 2 * TIMING.service_down_time_s, self._world.truth, self._world.hosts
        cut_off = [name for name in hosts if truth.was(since_s, at_s, (CUT_OFF, name))]
        if host in cut_off or truth.was(since_s, at_s, (OFF, host)):
            return True
        in_contact = [
            name
            for name in hosts
            if name != host
            and not truth.was(
                since_s,
                at_s,
                (OFF, name),
                (HEART_DEAD, name),
                (HEART_HUNG, name),
                (CUT, control, name),
                (BEAT_LOST, control, name),
                (SILENCE,),
                (DECLARED, name),
            )
        ]
        return bool(cut_off) and len(in_contact) < 2  # one of them would have been the third host

    def _unheard(self, control: str, host: str, at_s: float) -> list[What]:
        """What keeps that control from hearing that host."""
        whats: list[What] = [
            (OFF, host),
            (HEART_DEAD, host),
            (HEART_HUNG, host),
            (CUT, control, host),
            (BEAT_LOST, control, host),
            (SILENCE,),
            (DECLARED, host),
        ]
        apart_s = self._apart_since_s(control, at_s)
        if apart_s is not None and not self._must_hold(control, host, apart_s, at_s):
            whats.append((APART, control))
        return whats

    def _apart_since_s(self, control: str, at_s: float) -> float | None:
        """From when on it received nothing, in one spell or several, of several kinds, with no time for a beat between
        them."""
        truth, since_s = self._world.truth, None
        if not truth.was(at_s - TIMING.service_down_time_s, at_s, (APART, control)):
            return None
        kinds: list[What] = [(APART, control), (DEAF, control), (STOPPED, control), (SILENCE,)]
        for begin_s, end_s in sorted(
            (spell for kind in kinds for spell in truth.within(0.0, at_s, *kind)), reverse=True
        ):
            if end_s < (at_s - TIMING.service_down_time_s if since_s is None else since_s - UNEXPLAINED_S):
                continue
            since_s = begin_s if since_s is None else min(begin_s, since_s)
        return since_s

    def _must_hold(self, control: str, host: str, deaf_s: float, at_s: float) -> bool:
        """Whether that host and so many others were well when that control grew deaf that it must doubt itself."""
        if at_s - deaf_s > TIMING.suspect_after_s + TIMING.storm_hold_time_s - UNEXPLAINED_S:
            return False
        hosts = self._world.hosts
        well = [
            name
            for name in hosts
            if self._was_up(control, name, deaf_s)
            and not self._world.truth.was(
                deaf_s - UNEXPLAINED_S,
                deaf_s,
                (OFF, name),
                (HEART_DEAD, name),
                (HEART_HUNG, name),
                (AGENT_DEAD, name, COMPUTE),
                (CUT, control, name),
                (BEAT_LOST, control, name),
                (SILENCE,),
            )
        ]
        return host in well and len(well) > 1

    def _was_up(self, control: str, host: str, deaf_s: float) -> bool:
        """Whether it was listed as up when that began, and until it was found silent."""
        is_up, since_s = self._listed.get(f"{host}/{COMPUTE}", (True, 0.0))
        found_s = max(deaf_s, self._quiet_from_s(control, host)) + TIMING.suspect_after_s
        return since_s <= deaf_s if is_up else since_s > found_s

    def _quiet_from_s(self, control: str, host: str) -> float:
        """Since when that control counts the silence of that host: a grace may have put it off."""
        process = self._world.controls.get(control)
        seen = None if process is None else process.control.observer.observation(host)
        if process is None or seen is None:
            return 0.0
        return self._world.loop.time() - process.control.observer.now_s() + seen.quiet_from_s

    def _lasts(self, at_s: float, needed_s: float, whats: list[What]) -> bool:
        since_s = at_s - needed_s
        return needed_s - self._world.truth.length_s(since_s, at_s, whats) <= UNEXPLAINED_S


def _address(subject: str) -> Address:
    """The host of a service's row, and the service's name there."""
    row_host, _, binary = subject.rpartition("/")
    return address_of(row_host, binary)
