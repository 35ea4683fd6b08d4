"""Gathers what this control knows of a service for `service why`."""

from __future__ import annotations

import msgspec

from droveway.control.liveness.detector import FailureDetector
from droveway.control.liveness.duty import LEASE_TTL_S, DetectorDuty
from droveway.control.liveness.members import Members
from droveway.control.liveness.observer import Observer
from droveway.control.liveness.verdicts import Verdicts
from droveway.domain import service_kinds
from droveway.domain.faults import NotFound
from droveway.domain.liveness import State
from droveway.domain.resources import same_hypervisor
from droveway.domain.service_kinds import COMPUTE
from droveway.domain.why import CloudFacts, Explanation, ServiceFacts, explain
from droveway.ports.clock import Clock
from droveway.store.engine.transaction import Store, Tx
from droveway.store.fleet import certificates, host_reports, hosts, services
from droveway.store.rows import HostHealth, ServiceRow
from droveway.store.volume import backends

ALIKE_MAX = 16


class Why:
    """`driver` names the bus, `membership` the membership driver in place of heartbeats, if there is one."""

    def __init__(
        self,
        store: Store,
        clock: Clock,
        observer: Observer,
        detector: FailureDetector,
        verdicts: Verdicts,
        duty: DetectorDuty,
    ) -> None:
        self._store, self._clock = store, clock
        self._observer, self._detector, self._verdicts, self._duty = observer, detector, verdicts, duty
        self.driver, self.membership = "socket", ""
        self.members: Members | None = None

    async def __call__(self, host: str, binary: str) -> Explanation:
        """Raises NotFound, Busy."""
        row = await self._store.read(_read, host, binary)
        machine, service = service_kinds.address_of(host, binary)
        inbox = self._observer.inbox
        last_report = inbox.last_report(machine)
        if last_report is not None and row.reported_at_us is not None and last_report.at_us > row.reported_at_us:
            row = msgspec.structs.replace(row, reported_at_us=last_report.at_us)
        if (health := inbox.health(machine, service)) is not None:
            row = msgspec.structs.replace(
                row, health_at_us=health.at_us, is_well=health.is_well, health_reason=health.reason
            )
        seen = self._observer.observation(machine) if binary not in services.CONTROL else None
        return explain(row, seen, self._circumstances(seen.zone if seen is not None else ""))

    def _circumstances(self, zone: str) -> CloudFacts:
        now_s, detector, verdicts, members = self._clock.monotonic_s(), self._detector, self._verdicts, self.members
        by = self._duty.owner or "none yet"
        return CloudFacts(
            self._clock.now_us(),
            self._observer.now_s(),
            detector.timing,
            self.driver,
            f"{by}, by the members of {self.membership}" if self.membership else by,
            0.0 if detector.is_active else now_s - self._duty.moved_s,
            LEASE_TTL_S,
            None if detector.no_input is None else now_s - detector.no_input_since_s,
            "" if detector.no_input is None else detector.no_input.reason,
            "" if detector.no_input is None else detector.no_input.advice,
            None if verdicts.stalled_since_s is None else now_s - verdicts.stalled_since_s,
            verdicts.stalled_reason,
            self._observer.age_s(),
            detector.holds.reason(zone),
            self.membership,
            None if members is None or not members.trouble else now_s - members.trouble_since_s,
            "" if members is None else members.trouble,
            is_detector=detector.is_active,
        )


def _read(tx: Tx, host: str, binary: str) -> ServiceFacts:
    found = services.list_all(tx, host, binary)
    if not found:
        raise NotFound(f"There is no {binary} on a host named {host}; 'droveway service list' shows those there are.")
    machine, service = service_kinds.address_of(host, binary)
    late = certificates.late(tx, machine).get(machine, "")
    row = msgspec.structs.replace(_row(found[0], machine, service, hosts.health(tx, machine)), certificate=late)
    if service_kinds.KINDS[binary].has_backends:
        return msgspec.structs.replace(row, volumes=backends.count_on(tx, host), frozen=backends.is_frozen(tx, host))
    if service != COMPUTE:
        return row
    called, warning = _names(tx, machine)
    return msgspec.structs.replace(row, renamed_to=called, warning=warning)


def _names(tx: Tx, host: str) -> tuple[str, str]:
    """The name under which the host's machine reports now, when that is another one; and what there is to say of its
    hypervisor's name."""
    facts = next(iter(hosts.facts_of(tx, [host])), None)
    if facts is None:
        return "", ""
    alike = host_reports.who_say(tx, "hypervisor_hostname", facts.hypervisor_hostname, ALIKE_MAX)
    warning = same_hypervisor(facts.hypervisor_hostname, [name for name in alike if name != host])
    if facts.is_up:
        return "", warning
    reported = hosts.get(tx, host)["resources"] or {}
    others = [
        name for name in host_reports.who_say(tx, "host_uuid", reported.get("host_uuid", ""), ALIKE_MAX) if name != host
    ]
    # Who came later is the same machine under another name; who was there before is another one of the same maker.
    later = [one.name for one in hosts.facts_of(tx, others) if one.is_up and one.id > facts.id]
    return (later[0] if len(later) == 1 else ""), warning


def _row(row: ServiceRow, machine: str, service: str, health: HostHealth | None) -> ServiceFacts:
    """What was declared is the host's; what its hypervisor said is told of the service that said it."""
    facts = ServiceFacts(
        machine,
        service,
        State(row["state"]),
        row["reason"],
        row["since_us"] or 0,
        row["updated_at_us"],
        row["disabled"],
        row["disabled_reason"],
        row["forced_down"],
        is_up=row["is_up"],
        declared="" if health is None else health["declared"],
        declared_because="" if health is None else health["declared_because"],
    )
    if health is None or service != COMPUTE:
        return facts
    return msgspec.structs.replace(
        facts,
        hypervisor_up=health["hypervisor_up"],
        hypervisor_reason=health["reason"],
        reported_at_us=health["reported_at_us"],
        refused=health["refused"],
        store_trouble=(health["resources"] or {}).get("store_trouble", ""),
    )
