"""The failure detector: its states as one table, and what the observations of a host mean. Pure; times are the
observer's own.

Absence is measured by the observer's clock and by a rising counter, and that clock stands still while the observer
does (`ObserverClock`); no clock of another machine is read. Silence alone takes no service down: it makes it suspect,
and second opinions are asked for; where too many hosts fall silent at once the detector holds (a storm). What the
observations mean does not depend on the state in which they are read, and the same observations read twice change
nothing: a verdict changes only when evidence does.
"""

from __future__ import annotations

from enum import StrEnum
from operator import ne

import msgspec

BOOTS_KEPT = 8
LATENESS_MAX_MS = 0xFFFD
LEFT = 0xFFFE  # in place of a lateness: that service has ended in good order
DIED = 0xFFFF  # in place of a lateness: its process has ended, says the kernel
STORM_HOSTS_MIN, STORM_SHARE = 3, 0.02


class State(StrEnum):
    EXPECTED = "expected"  # it should report; nothing was heard of it yet
    ALIVE = "alive"
    SUSPECT = "suspect"  # silent: second opinions are being asked for, or one says that it is there
    HELD = "held"  # silent together with too many others, or no input at all: nothing is concluded
    NOT_REPORTING = "not reporting"
    HOST_GONE = "host gone"
    DEAD = "dead"  # its process has ended
    STOPPED = "stopped"  # in good order
    HUNG = "hung"  # its process is there and makes no progress


class Signal(StrEnum):
    """What the observations mean now, the strongest first."""

    LEFT = "left"  # it announced its end
    DIED = "died"  # the kernel reports that its process has ended
    DIED_EARLIER = "died earlier"  # the same, and its host has fallen silent
    STUCK = "stuck"  # beats arrive, and it has made no progress for longer than service_hung_time
    BEATS = "beats"  # beats arrive, and it makes progress
    WAIT = "wait"  # too few observations yet for a conclusion
    STORM = "storm"  # silent, and so are too many others at once
    SILENT = "silent"  # no heartbeat for two thirds of service_down_time
    ANSWERED = "answered"  # silent, yet its agent answers when it is asked
    UNHEARD = "unheard"  # silent for service_down_time, and its agent does not answer
    REACHED = "reached"  # and another host reaches its hypervisor
    GONE = "gone"  # and no other host reaches its hypervisor either


UP = frozenset({State.EXPECTED, State.ALIVE, State.SUSPECT, State.HELD})
_E, _A, _SU, _HE, _N, _G, _D, _ST, _HU = State
_BACK = {Signal.LEFT: _ST, Signal.DIED: _D, Signal.STUCK: _HU, Signal.BEATS: _A}
_ENDS = _BACK | {Signal.DIED_EARLIER: _D}
_UNREPORTED = "no heartbeat has reported on it since failure detection began or continued"
_LATE = {Signal.UNHEARD: _N, Signal.REACHED: _N, Signal.GONE: _G}

# State -> signal -> state. A pair that is not here changes nothing. Forced down is no state: it is set by an operator
# and overrides all of them.
TABLE: dict[State, dict[Signal, State]] = {
    _E: {**_ENDS, **_LATE},
    _A: {**_ENDS, **_LATE, Signal.SILENT: _SU, Signal.ANSWERED: _SU, Signal.STORM: _HE},
    _SU: {**_ENDS, **_LATE, Signal.STORM: _HE},
    _HE: {**_ENDS, **_LATE, Signal.SILENT: _SU, Signal.ANSWERED: _SU},
    # What is down stays down until a message of it arrives.
    _N: {**_ENDS, Signal.ANSWERED: _SU, Signal.GONE: _G},
    _G: {**_BACK, Signal.ANSWERED: _SU, Signal.REACHED: _N},
    _D: {**_BACK, Signal.GONE: _G},
    _ST: {Signal.BEATS: _A, Signal.STUCK: _HU, Signal.DIED: _ST},
    _HU: {**_ENDS, **_LATE, Signal.ANSWERED: _SU},
}


def next_state(state: State, signal: Signal) -> State:
    return TABLE[state].get(signal, state)


class Timing(msgspec.Struct, frozen=True):
    """Seconds."""

    report_interval_s: float = 1.0
    service_down_time_s: float = 3.0
    service_hung_time_s: float = 10.0
    storm_hold_time_s: float = 30.0

    @property
    def suspect_after_s(self) -> float:
        """Early enough that a second opinion is in before `service_down_time` is over."""
        return self.service_down_time_s * 2 / 3

    @property
    def ask_timeout_s(self) -> float:
        return min(5.0, self.service_down_time_s / 5)

    @property
    def conclude_after_s(self) -> float:
        """`service_down_time` is when a verdict is there at the latest: finding it and writing it take a moment too."""
        return self.service_down_time_s * 0.9


class Service(msgspec.Struct):
    """One service as the failure detector has it. `since_us` is wall time, for display."""

    state: State
    reason: str = ""
    since_us: int = 0
    note: str = ""  # what its heart found about a process that makes no progress
    # -- its connection to the bus
    connected: bool = False
    disconnect_reason: str = ""  # why that ended
    disconnected_cleanly: bool = False
    # -- its answer to a ping
    answered_s: float | None = None  # when it last answered a ping
    no_answer: str = ""


class HostObservation(msgspec.Struct):
    """What was observed of one host. Times are the observer's own seconds."""

    host: str
    quiet_from_s: float  # from when its silence counts: the last beat, or the end of a grace
    zone: str = ""
    services: dict[str, Service] = {}
    placed_s: float = 0.0  # when it was put last in the order in which hosts are heard: no later than that
    # -- beats
    beat_s: float | None = None  # when the last accepted one arrived
    boot_id: str = ""
    older_boots: tuple[str, ...] = ()
    counter: int = 0
    beats: int = 0
    refused: int = 0
    refusal: str = ""  # why the last refused one was
    foreign_beats: int = 0  # beats of another machine under this name, since this boot was accepted
    names: tuple[str, ...] = ()  # the services of the last beat that named any
    progress: tuple[int, ...] = ()
    progress_s: float = 0.0  # when a beat last reported progress while some service had none
    is_reported: bool = True  # whether a beat has reported progress or an end since the last grace
    stalled_since_s: dict[str, float] = {}  # services without progress, or no longer named, and since when
    ended: dict[str, bool] = {}  # services whose process has ended, and whether in good order
    reported_ended: set[str] = set()  # of which the last beat reported it: only the first report counts
    lateness_ms: int = 0
    heard_us: int = 0  # the observer's wall clock at the last beat, for display
    wall_us: int = 0  # the host's own at the same moment; 0: not reported
    heart_lost: str = ""  # why its heart's connection ended
    # -- second opinions
    asked_s: float | None = None
    is_reachable: bool | None = None  # whether another host reaches its hypervisor; None: no host could be asked
    reach_reason: str = ""
    # -- holds
    silent_found_s: float | None = None  # when this detector found it silent
    held_since_s: float | None = None
    is_hold_used: bool = False  # since the last beat it was held for the whole storm_hold_time

    def is_connected(self, service: str) -> bool:
        """Whether the bus has a connection of that service."""
        known = self.services.get(service)
        return known is not None and known.connected


def accept(seen: HostObservation, boot_id: str, counter: int, now_s: float, silence_s: float) -> bool:
    """Take the head of a beat in. False, with the reason in `refusal`, for one that is replayed or reordered, and for
    one of an older boot, or of another machine under the same name: a new boot is accepted once the last one has been
    silent for `silence_s`."""
    if boot_id != seen.boot_id:
        if boot_id in seen.older_boots:
            return _refuse(seen, f"a heartbeat of an older boot ({boot_id[:8]}) arrived")
        if seen.boot_id and seen.beat_s is not None and now_s - seen.beat_s < silence_s:
            seen.foreign_beats += 1
            return _refuse(
                seen, f"another machine sends heartbeats under this name (boot {boot_id[:8]} beside {seen.boot_id[:8]})"
            )
        new_boot(seen, boot_id)
    if counter <= seen.counter:
        return _refuse(seen, "a heartbeat was replayed or came out of order")
    if seen.beat_s is not None and now_s - seen.beat_s > silence_s:  # another heart, perhaps: who was to join this one
        for missing in seen.stalled_since_s.keys() - set(seen.names):  # could not, as long as it was silent
            seen.stalled_since_s[missing] = now_s
    seen.counter, seen.beat_s = counter, now_s
    seen.quiet_from_s = max(seen.quiet_from_s, now_s)
    seen.beats += 1
    return True


def _refuse(seen: HostObservation, reason: str) -> bool:
    seen.refused += 1
    seen.refusal = reason
    return False


def new_boot(seen: HostObservation, boot_id: str) -> None:
    """The host has booted again: nothing of its last boot counts."""
    if seen.boot_id:
        older = (*seen.older_boots, seen.boot_id)[-BOOTS_KEPT:]
        seen.older_boots = tuple(one for one in older if one != boot_id)
    seen.boot_id, seen.counter, seen.foreign_beats = boot_id, 0, 0
    seen.names, seen.progress = (), ()
    seen.stalled_since_s, seen.ended, seen.reported_ended = {}, {}, set()


def grant(seen: HostObservation, until_s: float) -> None:
    """A grace: its silence counts only from then on, and what was concluded from it before is dropped. What its beats
    reported before is older than the detector's clock tells, for that stood still: another beat has to report it."""
    seen.quiet_from_s = max(seen.quiet_from_s, until_s)
    seen.is_reported = False
    clear_suspicion(seen)


def discount(seen: HostObservation, since_s: float, until_s: float) -> None:
    """That time is none of its silence, as far as it was silent then."""
    if seen.quiet_from_s < until_s:
        seen.quiet_from_s = min(seen.quiet_from_s + until_s - since_s, until_s)


def clear_suspicion(seen: HostObservation) -> None:
    """After an accepted beat: what was concluded from the host's silence is dropped."""
    forget_opinions(seen)
    for service in seen.services.values():
        service.answered_s = None
    seen.silent_found_s = seen.held_since_s = None
    seen.heart_lost = ""
    seen.is_hold_used = False


def forget_opinions(seen: HostObservation) -> None:
    """Drop the second opinions; they are asked for anew."""
    seen.asked_s = seen.is_reachable = None
    seen.reach_reason = ""
    for service in seen.services.values():
        service.no_answer = ""


def note_progress(
    seen: HostObservation, names: tuple[str, ...], progress: tuple[int, ...], lateness_ms: tuple[int, ...], now_s: float
) -> bool:
    """Record which services make progress. True when any of them does not, or their names have changed."""
    worst = max(lateness_ms, default=0)
    if worst < LEFT:
        seen.lateness_ms = worst
    is_known = names is seen.names and len(names) == len(seen.services)
    if is_known and worst < LEFT and not seen.stalled_since_s and not seen.ended:
        if all(map(ne, progress, seen.progress)):
            seen.progress = progress
            return False
    elif names != seen.names:  # not only another copy of the same names
        before = dict(zip(seen.names, seen.progress, strict=True))
        for missing in set(seen.names) - set(names):
            seen.stalled_since_s[missing] = now_s  # earlier lack of progress does not count: now no process has joined
        seen.names, seen.progress = names, tuple(before.get(name, -1) for name in names)
    seen.names = names
    for missing in seen.services.keys() - set(names):
        seen.stalled_since_s.setdefault(missing, now_s)
    for name, was, is_, late in zip(names, seen.progress, progress, lateness_ms, strict=True):
        if late >= LEFT:
            if name not in seen.reported_ended:
                seen.reported_ended.add(name)
                seen.ended[name] = late == LEFT
            elif name not in seen.ended:  # another process of it has said hello, and not yet joined the heart
                seen.stalled_since_s.setdefault(name, now_s)
        elif is_ != was or name in seen.reported_ended:  # after an end it is another process
            seen.ended.pop(name, None)
            seen.stalled_since_s.pop(name, None)
            seen.reported_ended.discard(name)
        else:
            seen.stalled_since_s.setdefault(name, now_s)
    seen.progress, seen.progress_s, seen.is_reported = progress, now_s, True
    return True


def read(seen: HostObservation, binary: str, now_s: float, timing: Timing) -> tuple[Signal, str]:
    """What the observations mean for one service now, with the reason."""
    silent_s = now_s - seen.quiet_from_s
    is_silent = silent_s > timing.suspect_after_s or (seen.heart_lost != "" and silent_s >= 0)
    end = _read_end(seen, binary)
    if is_silent:
        silence = _read_silence(seen, binary, now_s, silent_s, timing)
        if end is None or (end[0] is Signal.DIED and silence[0] is Signal.GONE):  # the whole host, not one process
            return silence
        return (Signal.DIED_EARLIER, end[1]) if end[0] is Signal.DIED else end
    is_heard = seen.beat_s is not None and now_s - seen.beat_s <= timing.suspect_after_s
    if end is not None and (seen.is_reported or not seen.services[binary].connected):
        return (Signal.DIED_EARLIER, end[1]) if end[0] is Signal.DIED and not is_heard else end
    if not is_heard:
        return Signal.WAIT, "no heartbeat yet; waiting for the first one"
    if end is not None:
        return Signal.WAIT, _UNREPORTED
    stalled_since_s = seen.stalled_since_s.get(binary)
    if stalled_since_s is None:
        return Signal.BEATS, "heartbeats arrive"
    return _read_stalled(seen, binary, now_s, seen.progress_s - stalled_since_s, timing)


def _read_stalled(
    seen: HostObservation, binary: str, now_s: float, stalled_s: float, timing: Timing
) -> tuple[Signal, str]:
    """Of a service that made no progress for `stalled_s`, as heartbeats have shown it: time without them says nothing
    of it."""
    if binary not in seen.names or binary in seen.reported_ended:
        if binary in seen.reported_ended and stalled_s <= timing.service_down_time_s:  # it may have ended since, too
            return Signal.BEATS, "its process has said hello"
        if stalled_s <= timing.service_down_time_s:
            return Signal.WAIT, "its host sends heartbeats; it has not joined them yet"
        if not seen.is_reported:
            return Signal.WAIT, _UNREPORTED
        return Signal.DIED, f"its host sends heartbeats; no process of it has joined them for {stalled_s:.0f} s"
    if stalled_s < timing.service_hung_time_s:
        return Signal.BEATS, f"heartbeats arrive; its loop has not turned for {stalled_s:.1f} s"
    if not seen.is_reported:
        return Signal.WAIT, _UNREPORTED
    if now_s - seen.progress_s > timing.suspect_after_s:  # another one said hello, so its host is heard
        return Signal.WAIT, f"no heartbeat has reported its progress for {now_s - seen.progress_s:.1f} s"
    note = seen.services[binary].note
    return Signal.STUCK, f"it has made no progress for {stalled_s:.0f} s{': ' + note if note else ''}"


def _read_end(seen: HostObservation, binary: str) -> tuple[Signal, str] | None:
    service = seen.services[binary]
    if service.disconnect_reason and not service.connected:
        return (Signal.LEFT if service.disconnected_cleanly else Signal.DIED), service.disconnect_reason
    if binary not in seen.ended:
        return None
    if seen.ended[binary]:
        return Signal.LEFT, "it ended in good order, as its host's heart reports"
    note = service.note
    return Signal.DIED, "its process has ended, as the kernel of its host reports" + (f": {note}" if note else "")


def _read_silence(
    seen: HostObservation, binary: str, now_s: float, silent_s: float, timing: Timing
) -> tuple[Signal, str]:
    what, service = _silence(seen, silent_s), seen.services[binary]
    if seen.held_since_s is not None:
        return Signal.STORM, what
    if service.answered_s is not None and now_s - service.answered_s <= timing.service_down_time_s:
        return Signal.ANSWERED, f"{what}; yet its agent answers: its heart does not report"
    if (
        silent_s <= timing.conclude_after_s or not service.no_answer
    ):  # a detector that has just started has not asked yet
        return Signal.SILENT, what
    if seen.is_reachable is False:
        return Signal.GONE, f"{what}; its agent does not answer, and {seen.reach_reason}"
    asked = f"{what}; its agent does not answer ({service.no_answer})"
    return (Signal.REACHED, f"{asked}; {seen.reach_reason}") if seen.is_reachable else (Signal.UNHEARD, asked)


def _silence(seen: HostObservation, silent_s: float) -> str:
    if seen.beat_s is None:
        return f"it has not reported for {silent_s:.1f} s since it was expected to"
    return f"no heartbeat for {silent_s:.1f} s" + (f" ({seen.heart_lost})" if seen.heart_lost else "")


def storm_threshold(hosts: int) -> int:
    """How many hosts of a zone of that size must fall silent within one service_down_time to be a storm."""
    return max(STORM_HOSTS_MIN, round(hosts * STORM_SHARE))


class Opinion(msgspec.Struct, frozen=True):
    """What a membership driver reports in place of the failure detector."""

    is_up: bool
    reason: str
    held: bool = False  # no conclusion yet

    @property
    def signal(self) -> Signal:
        return Signal.WAIT if self.held else Signal.BEATS if self.is_up else Signal.UNHEARD


def diagram() -> str:
    """The table as a Mermaid state diagram, for docs/liveness.md."""
    lines = ["stateDiagram-v2"]
    for state, ways in TABLE.items():
        by_end: dict[State, list[str]] = {}
        for signal, end in ways.items():
            if end is not state:
                by_end.setdefault(end, []).append(signal.value)
        lines += [f"    {_id(state)} --> {_id(end)}: {', '.join(signals)}" for end, signals in by_end.items()]
    lines += [f"    {_id(state)}: {state.value} ({'up' if state in UP else 'down'})" for state in State]
    return "\n".join(lines)


def _id(state: State) -> str:
    return state.value.replace(" ", "_")
