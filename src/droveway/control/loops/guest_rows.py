"""What the guests loop reads and writes: plain functions of one transaction."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TypeVar

import msgspec
import structlog

from droveway.domain.faults import NotFound
from droveway.domain.model import Guest, GuestState, SagaKind, SagaStatus, TaskState, VmState, of_host, of_instance
from droveway.domain.reconcile import Remedy, was_lost
from droveway.ports.bus import Report
from droveway.store.compute import instances, server_ports
from droveway.store.engine.transaction import Tx
from droveway.store.rows import DeferredCleanupRow, InstanceRow
from droveway.store.work import events, sagas, subjects

RUNS = frozenset({GuestState.RUNNING, GuestState.PAUSED})
log = structlog.get_logger("droveway.guests")
_R = TypeVar("_R")
DEFERRED_AT_ONCE = 256  # removals that hosts are made to catch up on together
ALARM_AGAIN_US = 3_600_000_000  # the same alarm, by whichever control
POWER = {
    GuestState.RUNNING: instances.POWER_RUNNING,
    GuestState.PAUSED: instances.POWER_PAUSED,
    GuestState.SHUTOFF: instances.POWER_SHUTDOWN,
    GuestState.ABSENT: instances.POWER_SHUTDOWN,
}

HELD = {Remedy.RECORD_PAUSED: VmState.PAUSED, Remedy.RECORD_SUSPENDED: VmState.SUSPENDED}


class GuestRows(msgspec.Struct):
    """What the store says about the guests of some hosts."""

    placed: dict[str, list[InstanceRow]]  # by host: instances whose place it is
    known: dict[str, InstanceRow]  # those, and of the reported guests the instances that ever were
    busy: set[str]  # instances that a saga is working on
    deferred_cleanup: dict[str, list[DeferredCleanupRow]]  # by host: deleted instances whose removal was left for later


def record_alarm(tx: Tx, instance: InstanceRow, reason: str, names: tuple[str, str | None]) -> None:
    """Of the instance, and of each host it is about. Every control sees it: it is said by one, and not soon again."""
    for one in events.of_subject(tx, of_instance(instance["id"])):
        is_recorded = one["kind"] == "alarm" and one["body"]["reason"] == reason
        if is_recorded and abs(tx.now_us - one["at_us"]) < ALARM_AGAIN_US:
            return
    events.record(tx, "alarm", of_instance(instance["id"]), {"reason": reason}, instance["project_id"])
    for host in names:
        if host:
            body = {"reason": f"guest {instance['id']}: {reason}", "server_id": instance["id"]}
            events.record(tx, "alarm", of_host(host), body)


def resting(tx: Tx, ids: Iterable[str]) -> dict[str, InstanceRow]:
    """Those of the instances that no saga is working on; mostly none, because sagas are what makes guests change."""
    return resting_and_busy(tx, ids)[0]


def resting_and_busy(tx: Tx, ids: Iterable[str]) -> tuple[dict[str, InstanceRow], set[str]]:
    """The same, and the others."""
    wanted = list(ids)
    busy = sagas.busy_among(tx, wanted)
    left = [instance_id for instance_id in wanted if instance_id not in busy]
    return (instances.by_ids(tx, left) if left else {}), busy


def facts(tx: Tx, reports: list[Report]) -> GuestRows:
    names = [report.host for report in reports]
    placed = instances.on_hosts(tx, names)
    named = {guest.instance_id for report in reports for guest in report.guests}
    named.update(*(report.admitted for report in reports))
    known = {row["id"]: row for row in placed}  # nearly all that are told of
    known |= instances.by_ids(tx, named - known.keys())
    busy = sagas.busy_among(tx, known)
    deferred_cleanup = instances.deferred_cleanup_of(tx, names, most=DEFERRED_AT_ONCE)
    by_host = _by_host((instances.host_of(row), row) for row in placed)
    return GuestRows(by_host, known, busy, _by_host((row["host"], row) for row in deferred_cleanup))


def _by_host(rows: Iterable[tuple[str, _R]]) -> dict[str, list[_R]]:
    found: dict[str, list[_R]] = {}
    for host, row in rows:
        found.setdefault(host, []).append(row)
    return found


def _just_failed(tx: Tx, instance_id: str, pause_us: int) -> bool:
    """Whether an earlier try to start it again failed a short while ago: a lost disk does not come back by trying."""
    last = sagas.last_of(tx, of_instance(instance_id), SagaKind.START)
    return (
        last is not None
        and last["status"] == SagaStatus.UNDONE
        and abs(tx.now_us - last["updated_at_us"]) < pause_us  # it may be of a clock that was ahead
    )


def apply(tx: Tx, seen: InstanceRow, found: Remedy, guest: Guest, boot_id: str, pause_us: int) -> None:
    """Write the remedy if nothing has begun since `seen` was read. A start that failed is not tried again within
    `pause_us`."""
    try:
        instance = instances.get(tx, seen["id"])
    except NotFound:
        return
    if instance["fence"] != seen["fence"] or sagas.active_of(tx, of_instance(seen["id"])) is not None:
        return
    if found is not Remedy.NOTHING:
        log.info("guest differs from its row", instance=seen["id"], host=seen["host"], remedy=found.value)
        instances.record_lost_guest(
            tx, seen["id"], seen["project_id"], {"remedy": found.value, "guest": guest.state.value}
        )
    if found is Remedy.START_AGAIN:
        if _just_failed(tx, seen["id"], pause_us) or subjects.in_the_way(tx, (of_instance(seen["id"]),)) is not None:
            return  # what waits for its turn goes first, and what it leaves is looked at then
        instances.set_(tx, seen["id"], task_state=TaskState.POWERING_ON.value)
        sagas.enqueue(
            tx,
            SagaKind.START,
            of_instance(seen["id"]),
            seen["project_id"],
            {"because": "its host went down under it"},
            request_id="",
        )
        return
    if found is Remedy.RECORD_STOPPED:
        power = instances.POWER_CRASHED if guest.crashed else instances.POWER_SHUTDOWN
        instances.set_(tx, seen["id"], vm_state=VmState.STOPPED.value, power_state=power)
        server_ports.set_status(tx, seen["id"], is_running=False)
    elif found is Remedy.RECORD_RUNNING:
        mended = {"fault": None} if instance["vm_state"] == VmState.ERROR else {}
        instances.set_(
            tx, seen["id"], vm_state=VmState.ACTIVE.value, power_state=POWER[guest.state], ran_boot_id=boot_id, **mended
        )
        server_ports.set_status(tx, seen["id"], is_running=True)
    elif found in HELD:
        instances.set_(tx, seen["id"], vm_state=HELD[found].value, power_state=POWER[guest.state])
    else:
        instances.set_power(tx, seen["id"], POWER[guest.state])


def runs_in(report: Report, instance_id: str) -> bool:
    return any(guest.instance_id == instance_id and guest.state in RUNS for guest in report.guests)


def instance_was_lost(instance: InstanceRow) -> bool:
    return was_lost(instance["vm_state"], instance["power_state"], instance["ran_boot_id"])
