"""Why a service is up or down: the verdict, the evidence it rests on, and what to do. Pure.

Evidence is what was heard and seen, each a sentence with what it is about; `is_bad` marks what speaks against the
service. Advice depends on the verdict, and names commands.
"""

from __future__ import annotations

import msgspec

from droveway.domain import service_kinds
from droveway.domain.liveness import UP, HostObservation, State, Timing
from droveway.domain.service_kinds import COMPUTE

CLOCK_OFFSET_SHOWN_S = 0.5
LATE_MS = 1000
REPORT_LATE_S = 90.0  # one is due each minute
FOREIGN_BEATS_MIN = 5  # fewer are a host that has just started again


class ServiceFacts(msgspec.Struct, frozen=True):
    """What the store says of the service and its host. Times are microseconds of wall time."""

    host: str
    binary: str  # its name there, with its backend
    state: State
    reason: str
    since_us: int
    updated_at_us: int | None
    disabled: bool
    disabled_reason: str | None
    forced_down: bool
    hypervisor_up: bool | None = None  # None: no host of it
    hypervisor_reason: str = ""
    reported_at_us: int | None = None
    is_up: bool = True  # as the lists show it while nothing was heard of it
    refused: str = ""  # why its host's report is refused
    renamed_to: str = ""  # the name under which its machine reports, which is not this one
    warning: str = ""  # what is odd about its hypervisor's name
    store_trouble: str = ""  # why its host's instance store cannot be used
    declared: str = ""  # what an operator said of its host: gone, or readmitted; and why
    declared_because: str = ""
    health_at_us: int | None = None  # when it last reported how it is, if it is a service that does; and what it said
    is_well: bool = True
    health_reason: str = ""
    certificate: str = ""  # what is wrong with its host's certificate
    volumes: int | None = None  # how many lie on its backend; None: it has none
    frozen: bool = False  # nothing new is made on its backend


class CloudFacts(msgspec.Struct, frozen=True):
    """What holds for everybody. Ages are seconds."""

    now_us: int
    now_s: float  # the detector's time, as in a HostObservation
    timing: Timing
    driver: str  # socket, nats, rabbitmq
    detector: str  # a control's name; a membership driver's
    detector_age_s: float  # since its lease's counter last moved
    detector_ttl_s: float
    no_input_s: float | None = None  # for how long the failure detector has had no input
    no_input_reason: str = ""
    no_input_advice: str = ""
    stalled_s: float | None = None  # how long the store has refused verdicts
    stalled_reason: str = ""
    listened_s: float = 0.0  # since this control began to listen
    hold: str = ""
    membership: str = ""  # the membership driver in place of heartbeats
    membership_s: float | None = None  # how long its server has not answered
    membership_reason: str = ""
    is_detector: bool = True  # this control is; the others have received, and concluded nothing


class Evidence(msgspec.Struct, frozen=True):
    about: str
    reason: str
    is_bad: bool = False


class Explanation(msgspec.Struct, frozen=True):
    verdict: dict[str, object]
    evidence: list[Evidence]
    advice: list[str]


def explain(row: ServiceFacts, seen: HostObservation | None, now: CloudFacts) -> Explanation:
    """`seen` is what this control has heard itself; None when that is nothing."""
    service = None if seen is None else seen.services.get(row.binary)
    state, reason, since_us = row.state, row.reason, row.since_us
    if service is not None and service.reason and now.is_detector:
        state, reason, since_us = service.state, service.reason, service.since_us or row.since_us
    is_up = (row.is_up if state is State.EXPECTED else state in UP) and not row.forced_down
    listed_host, binary = service_kinds.row_of(row.host, row.binary)
    verdict: dict[str, object] = {
        "host": listed_host,
        "binary": binary,
        "state": "forced down" if row.forced_down else state.value,
        "word": "up" if is_up else "down",
        "since_us": since_us,
        "reason": f"forced down by an operator; detected as {state.value}: {reason}" if row.forced_down else reason,
    }
    evidence = [*_operator(row), *_detector_and_bus(now)]
    if seen is not None:
        evidence += [
            *_beats(seen, now),
            *_process(seen, row.binary, now),
            *_opinions(seen, row.binary),
            *_clock(seen, now),
        ]
    evidence += [*_health(row, now), *_backend(row, is_up=is_up), *_hypervisor(row, now)]
    return Explanation(verdict, evidence, _advice(row, state, seen, now))


def _ago(us: int, now_us: int) -> str:
    return f"{max(0.0, (now_us - us) / 1e6):.1f} s ago"


def _operator(row: ServiceFacts) -> list[Evidence]:
    words = []
    if row.declared:
        and_then = "" if row.declared == "gone" else "; it is let in again, and ends what is not its own any more"
        words.append(Evidence("operator", f"its host was declared gone: {row.declared_because}{and_then}", True))
    elif row.forced_down:
        words.append(Evidence("operator", "an operator forced it down", True))
    if row.disabled:
        because = f": {row.disabled_reason}" if row.disabled_reason else "; no reason was given"
        words.append(Evidence("operator", f"an operator disabled it, so nothing new is placed there{because}"))
    return words


def _detector_and_bus(now: CloudFacts) -> list[Evidence]:
    words = []
    if now.detector_age_s > now.detector_ttl_s:
        last = (
            f"no failure detector has run for {now.detector_age_s:.0f} s (last: {now.detector}): the last state is kept"
        )
        words.append(Evidence("detector", last, True))
    else:
        last = f", whose counter last moved {now.detector_age_s:.0f} s ago" if now.detector_age_s >= 1 else ""
        words.append(Evidence("detector", f"failure detector: {now.detector}{last}"))
    if now.no_input_s is not None:
        none = (
            f"no heartbeats can be received for {now.no_input_s:.0f} s, the last state is kept: {now.no_input_reason}"
        )
        words.append(Evidence("broker", none, True))
    if now.membership_s is not None:
        away = f"{now.membership} does not answer for {now.membership_s:.0f} s, the last state is kept"
        words.append(Evidence("membership", f"{away}: {now.membership_reason}", True))
    if now.stalled_s is not None:
        stalled = f"it has taken nothing for {now.stalled_s:.0f} s, so the lists are older than this"
        words.append(Evidence("database", f"{stalled}: {now.stalled_reason}", True))
    if now.hold:
        words.append(Evidence("detector", f"hold: {now.hold}; missing heartbeats do not count for now", True))
    return words


def _beats(seen: HostObservation, now: CloudFacts) -> list[Evidence]:
    interval_s = now.timing.report_interval_s
    if seen.beat_s is None:
        return [Evidence("beat", f"no heartbeat since this control began to listen, {now.listened_s:.0f} s ago", True)]
    silent_s = max(0.0, now.now_s - seen.beat_s) + (now.no_input_s or 0.0)  # meanwhile the detector's time stands still
    missed = int(silent_s / interval_s)
    text = (
        f"last heartbeat {silent_s:.1f} s ago over the {now.driver} bus, {seen.beats} so far, one each {interval_s:g} s"
    )
    words = [Evidence("beat", text + (f": {missed} missed" if missed else ""), missed > 1)]
    if seen.heart_lost:
        words.append(Evidence("beat", seen.heart_lost, True))
    if seen.foreign_beats >= FOREIGN_BEATS_MIN:
        words.append(Evidence("beat", f"{seen.foreign_beats} heartbeats of another machine came under its name", True))
    if seen.refused:
        words.append(Evidence("beat", f"{seen.refused} heartbeats refused, the last because {seen.refusal}"))
    return words


def _process(seen: HostObservation, binary: str, now: CloudFacts) -> list[Evidence]:
    words, service = [], seen.services.get(binary)
    if service is not None and service.disconnect_reason and not service.connected:
        words.append(Evidence("process", service.disconnect_reason, True))
    if binary in seen.ended:
        note = "" if service is None else service.note
        how = note or ("in good order" if seen.ended[binary] else "killed or failed")
        words.append(Evidence("process", f"the kernel of its host says that its process has ended ({how})", True))
    is_heard = seen.beat_s is not None and now.now_s - seen.beat_s <= now.timing.suspect_after_s
    stalled_since_s = seen.stalled_since_s.get(binary)
    if stalled_since_s is not None and binary not in seen.ended:
        stalled_s = max(0.0, seen.progress_s - stalled_since_s)  # as heartbeats have shown it
        what = "its loop has not turned" if binary in seen.names else "no process of it has joined its host's heart"
        words.append(Evidence("loop", f"{what} for {stalled_s:.1f} s", True))
        if service is not None and service.note:
            words.append(Evidence("loop", service.note, True))
    elif binary in seen.names and binary not in seen.ended and is_heard:
        words.append(
            Evidence("loop", f"its loop turns, late by {seen.lateness_ms} ms at worst", seen.lateness_ms > LATE_MS)
        )
    return words


def _opinions(seen: HostObservation, binary: str) -> list[Evidence]:
    words, service = [], seen.services.get(binary)
    if service is not None and service.answered_s is not None:
        words.append(Evidence("network", "its agent answers when asked over the bus"))
    elif service is not None and service.no_answer:
        words.append(Evidence("network", f"its agent does not answer when asked: {service.no_answer}", True))
    if seen.is_reachable is not None:
        words.append(Evidence("network", seen.reach_reason, not seen.is_reachable))
    return words


def _clock(seen: HostObservation, now: CloudFacts) -> list[Evidence]:
    if not seen.wall_us:
        return []
    offset_s = (seen.wall_us - seen.heard_us) / 1e6
    if abs(offset_s) < CLOCK_OFFSET_SHOWN_S:
        return [Evidence("clock", "its clock agrees with control's within half a second")]
    way = "ahead of" if offset_s > 0 else "behind"
    return [Evidence("clock", f"its clock is {abs(offset_s):.1f} s {way} control's; no verdict rests on it")]


def _health(row: ServiceFacts, now: CloudFacts) -> list[Evidence]:
    if row.health_at_us is None:
        return []
    about = "report" if row.volumes is None else "pool"
    words = [Evidence(about, f"{_ago(row.health_at_us, now.now_us)}: {row.health_reason}", not row.is_well)]
    if (now.now_us - row.health_at_us) / 1e6 > REPORT_LATE_S:
        late = f"it last reported {_ago(row.health_at_us, now.now_us)}, and should each minute"
        words.append(Evidence("report", late, True))
    return words


def _backend(row: ServiceFacts, *, is_up: bool) -> list[Evidence]:
    if row.volumes is None:
        return []
    words = [Evidence("pool", "an operator froze it: nothing new is made there", True)] if row.frozen else []
    some = f"{row.volumes} volume lies there" if row.volumes == 1 else f"{row.volumes} volumes lie there"
    if is_up or not row.volumes:
        return [*words, Evidence("pool", some)]
    return [*words, Evidence("pool", f"{some}: servers that have them go on, and nothing else is done to them", True)]


def _hypervisor(row: ServiceFacts, now: CloudFacts) -> list[Evidence]:
    doubts = []
    if row.certificate:
        doubts.append(Evidence("certificate", row.certificate, True))
    if row.renamed_to:
        doubts.append(
            Evidence("machine", f"the machine that reported under this name now reports as {row.renamed_to}", True)
        )
    if row.warning:
        doubts.append(Evidence("hypervisor", row.warning))
    if row.refused:
        doubts.append(
            Evidence("report", f"its last report was refused: {row.refused}; no new guest is placed there", True)
        )
    if row.hypervisor_up is None or row.reported_at_us is None:
        return doubts
    words, age_s = _ago(row.reported_at_us, now.now_us), (now.now_us - row.reported_at_us) / 1e6
    if min(age_s, now.listened_s) > REPORT_LATE_S:  # a detector that has just started has received no report yet
        doubts.append(Evidence("report", f"its agent last reported {words}, and should each minute", True))
    if row.store_trouble:
        doubts.append(Evidence("store", f"{row.store_trouble}; no new guest is placed there", True))
    if row.hypervisor_up:
        return [*doubts, Evidence("hypervisor", f"its agent reached the hypervisor when it last reported, {words}")]
    return [*doubts, Evidence("hypervisor", f"its agent reported {words}: {row.hypervisor_reason}", True)]


def _advice(row: ServiceFacts, state: State, seen: HostObservation | None, now: CloudFacts) -> list[str]:
    if now.no_input_s is not None:
        return [now.no_input_advice]
    if now.membership_s is not None:
        return [f"bring {now.membership} back; its members join again by themselves"]
    if now.detector_age_s > now.detector_ttl_s:
        return ["start a control: 'droveway control', or look why the one that runs stands still"]
    if row.declared == "gone":
        return [f"let it in again when it is back: droveway host readmit {row.host}"]
    is_forced = row.forced_down and not row.declared
    listed = " ".join(service_kinds.row_of(row.host, row.binary))
    words = [f"enable it: openstack compute service set --up {listed}"] if is_forced else []
    if row.binary != COMPUTE and state is State.HUNG:
        return [*words, _KILL_IT]
    words += _ADVICE.get(state, []) if not row.renamed_to or state in UP else _ADVICE_RENAMED
    if row.volumes is not None and state in UP and row.health_at_us is not None and not row.is_well:
        words.append("look at its pool, and at its [[host.backend]] on that host; it is looked at again every 2 s")
    if row.volumes and state in (State.STOPPED, State.EXPECTED):
        words.append("if its [[host.backend]] was removed: put it back, and move or delete its volumes before")
    if row.refused:
        words.append("look at what that host says of itself: droveway host show {host}")
    if row.store_trouble:
        words.append("look at that host's instance store and its server: df, mount, dmesg")
    if row.hypervisor_up is False:
        words.append("start libvirtd on that host, or look why it hangs: virsh -c qemu:///system list")
    if seen is not None and seen.wall_us and abs(seen.wall_us - seen.heard_us) / 1e6 >= CLOCK_OFFSET_SHOWN_S:
        words.append("set that host's clock by NTP: logs and guests go by it")
    if seen is not None and seen.foreign_beats >= FOREIGN_BEATS_MIN:
        words.append("two machines go by this host name: rename one of them")
    which = "" if row.binary == COMPUTE else f" --service {row.binary}"
    return [one.format(host=row.host, binary=row.binary, which=which) for one in words]


_ADVICE_RENAMED = [
    "see what is left under this name: droveway host show {host}; if its machine is to keep the new "
    "one and nothing is, delete this compute service"
]
_KILL_IT = "look what it is stuck in; if it stays so kill it: its supervisor starts it again"
_ADVICE = {
    State.EXPECTED: ["start its agent: 'droveway agent --host {host}{which}'"],
    State.SUSPECT: ["look at its heart: 'droveway heart --host {host}' must run there"],
    State.HELD: ["look at control's own network first: too many fell silent at once"],
    State.NOT_REPORTING: ["look at that host: is 'droveway all' (agent and heart) running, and does it reach the bus?"],
    State.HOST_GONE: ["look at the machine and its link; its guests start nowhere else without proof that it is off"],
    State.DEAD: ["look why it ended in that host's log; its supervisor starts it again with a growing pause"],
    State.STOPPED: ["start it again when the work on that host is done: 'droveway agent --host {host}{which}'"],
    State.HUNG: ["look what it is stuck in; if it stays so kill it: its guests go on and the next agent adopts them"],
}
