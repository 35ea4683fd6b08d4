"""What must hold: the laws that are asserted all the time, and what must be true once there is peace."""

from __future__ import annotations

from typing import TYPE_CHECKING

from sqlalchemy import bindparam, select

from droveway.agents.reports import LOOK_S
from droveway.domain.model import (
    GuestState,
    MigrationStatus,
    SagaKind,
    SagaStatus,
    SpareDisk,
    SubjectKind,
    VmState,
)
from droveway.domain.service_kinds import row_of
from droveway.drivers.hypervisor.store_watch import ANSWERS_WITHIN_S
from droveway.simulation import network_laws, together
from droveway.simulation.verdict_laws import NEWS_S
from droveway.store.compute.instances import POWER_SHUTDOWN
from droveway.store.compute.migrations import UNDER_WAY
from droveway.store.engine import results
from droveway.store.engine.in_list import in_list, one_of
from droveway.store.engine.prepared import Prepared
from droveway.store.engine.transaction import Tx
from droveway.store.fleet import hosts
from droveway.store.fleet.hosts import COMPUTE
from droveway.store.rows import InstanceRow, MigrationRow, SagaRow, ServiceRow
from droveway.store.schema import instances, migrations, sagas, services
from droveway.store.work import subjects

if TYPE_CHECKING:
    from droveway.simulation.world import World

# So long a store may hang, or answer again, before its host is shown so: until the agent looks and gives up, and its
# report is taken in; it may be lost once.
STORE_SHOWN_S = ANSWERS_WITHIN_S + 2 * (LOOK_S + NEWS_S)
FINAL_MIGRATION = {status.value for status in MigrationStatus} - {status.value for status in UNDER_WAY}
LIVES_AS = {
    VmState.ACTIVE.value: GuestState.RUNNING,
    VmState.PAUSED.value: GuestState.PAUSED,
    VmState.RESCUED.value: GuestState.RUNNING,
}
LIVES = {GuestState.RUNNING, GuestState.PAUSED}


def broken_laws(world: World) -> list[str]:
    """Everything that was found to be broken so far: by the physics, by the rows, by a process that fell over."""
    networks = [] if world.networks is None else world.networks.look()
    of_volumes = [] if world.volumes is None else world.volumes.look()
    found = [*world.fleet.violations, *world.database.broken_laws(), *world.violations, *_survivors(world)]
    of_roots = [] if world.root_pools is None else world.root_pools.look()
    return [*found, *networks, *of_volumes, *of_roots]


def _survivors(world: World) -> list[str]:
    """The dead run nothing: by the time of the check, every task of a killed process has ended."""
    found = [
        f"{process.name} was killed and still runs {process.running}" for process in world.dying if process.running
    ]
    world.dying.clear()
    return found


_INSTANCES, _MIGRATIONS, _SERVICES = (Prepared(select(table)) for table in (instances, migrations, services))
_OPEN = Prepared(select(sagas).where(sagas.c.ended.is_(False)))
_LOSES_MEMORY = [kind.value for kind in (SagaKind.STOP, SagaKind.PAUSE, SagaKind.SUSPEND)]  # at once, or by a crash
# Refused halfway, they leave a guest off.
_CYCLES = [one.value for one in (SagaKind.HARD_REBOOT, SagaKind.SOFT_REBOOT, SagaKind.RESCUE, SagaKind.UNRESCUE)]
_STOPS = Prepared(
    select(sagas.c.subject_id, sagas.c.params).where(
        one_of(sagas.c.kind, _LOSES_MEMORY)
        | (one_of(sagas.c.kind, _CYCLES) & (sagas.c.status == SagaStatus.UNDONE.value))
    )
)
_SHOWN = Prepared(select(services.c.is_up).where(services.c.host == bindparam("of"), services.c.binary == COMPUTE))
_UNDELETED = Prepared(select(instances).where(in_list(instances.c.id, "ids"), instances.c.deleted.is_(False)))


class StoreSnapshot:
    """What the store says, read at one moment."""

    def __init__(self, tx: Tx) -> None:
        self.instances = results.every(InstanceRow, tx.execute(_INSTANCES))
        self.sagas = results.every(SagaRow, tx.execute(_OPEN))
        self.migrations = results.every(MigrationRow, tx.execute(_MIGRATIONS))
        self.services = results.every(ServiceRow, tx.execute(_SERVICES))
        self.stopped_by_somebody: set[str] = set()
        for subject_id, params in tx.execute(_STOPS):
            self.stopped_by_somebody |= {subject_id, params.get(together.OTHER, subject_id)}


def unsettled(world: World) -> list[str]:
    """Why it may not be said yet that everything has ended."""
    rows = world.database.look(StoreSnapshot)
    looks = (_open, _hosts, _places, _rescued, _stopped, _leftovers, network_laws.at_rest)
    of_volumes = [] if world.volumes is None else world.volumes.at_rest()
    of_roots = [] if world.root_pools is None else world.root_pools.at_rest()
    return [reason for look in looks for reason in look(world, rows)] + of_volumes + of_roots


def _open(world: World, rows: StoreSnapshot) -> list[str]:
    found = [
        f"{row['kind']} {row['id']} of {row['subject_kind']} {row['subject_id']} is {row['status']} at "
        f"{row['step']!r}, owner {row['owner']}, blocked: {row['blocked']}"
        for row in rows.sagas
    ]
    found += [
        f"migration {row['uuid']} is {row['status']}, holds a claim: {row['holds_claim']}"
        for row in rows.migrations
        if row["status"] not in FINAL_MIGRATION or row["holds_claim"]
    ]
    found += [
        f"instance {row['id']} still shows {row['task_state']}"
        for row in rows.instances
        if row["task_state"] is not None
    ]
    for process in world.controls.values():
        runner = process.control.runner
        if runner is not None and runner.running and not rows.sagas:
            found.append(f"{process.name} still carries {runner.running} sagas and none is open")
    return found


def _hosts(world: World, rows: StoreSnapshot) -> list[str]:
    """Every service runs by now, and every list shows it: none is shown down, none is missing."""
    shown = {(row["host"], row["binary"]) for row in rows.services}
    missing = [
        f"{service} of {name} lives and no list shows it"
        for name, host in world.hosts.items()
        for service in host.services
        if row_of(name, service) not in shown
    ]
    return missing + [
        f"{row['binary']} on {row['host']} is shown down: {row['reason']}" for row in rows.services if not row["is_up"]
    ]


def shows_up(tx: Tx, host: str) -> bool:
    """What the lists say of that host's agent; one whose service was deleted is not up."""
    return bool(tx.execute(_SHOWN, {"of": host}).scalar())


def shows_store_trouble(tx: Tx, host: str) -> bool:
    """Whether everybody can see that this host's store does not answer."""
    return bool(hosts.facts(tx, host).store_trouble)


def at_work(tx: Tx) -> set[str]:
    """Instances of which a saga is open, and those that one needs beside its own."""
    about = {row["subject_id"] for row in results.every(SagaRow, tx.execute(_OPEN))}
    return about | subjects.beside(tx, SubjectKind.INSTANCE)


def concerned(tx: Tx, host: str) -> list[str]:
    """Instances that are on that host, or are being moved to it."""
    there = select(instances.c.id).where(instances.c.host == host, instances.c.deleted.is_(False))
    coming = select(migrations.c.instance_id).where(migrations.c.destination == host, migrations.c.holds_claim)
    return sorted({*tx.execute(there).scalars(), *tx.execute(coming).scalars()})


def undeleted(tx: Tx, ids: list[str]) -> list[str]:
    """Why some of these are not deleted yet."""
    rows = results.every(InstanceRow, tx.execute(_UNDELETED, {"ids": ids}))
    opened = results.every(SagaRow, tx.execute(_OPEN))
    waits = {
        row["subject_id"]: f"{row['kind']} {row['status']} at {row['step']!r}, blocked: {row['blocked']}"
        for row in opened
        if row["status"] != SagaStatus.QUEUED.value
    }
    return [
        f"instance {row['id']} is {row['vm_state']} on {row['host']}, {row['task_state']}: {waits.get(row['id'])}"
        for row in rows
    ]


def _stopped(world: World, rows: StoreSnapshot) -> list[str]:
    """What is stopped was stopped by a user, or crashed by itself: a host's crash and a migration stop no instance."""
    may_be = rows.stopped_by_somebody | world.crashed_guests
    return [
        f"instance {row['id']} is stopped, and no request stopped it"
        for row in rows.instances
        if row["vm_state"] == VmState.STOPPED.value and row["id"] not in may_be
    ]


def _places(world: World, rows: StoreSnapshot) -> list[str]:
    """Every instance is exactly where and what its row says."""
    runs_on: dict[str, list[str]] = {}
    for host in world.fleet.hosts.values():
        for instance_id, domain in host.domains.items():
            if domain.state in LIVES:
                runs_on.setdefault(instance_id, []).append(f"{host.name} ({domain.state})")
    found = []
    for row in rows.instances:
        runs = runs_on.pop(row["id"], [])
        how = LIVES_AS.get(row["vm_state"])
        if row["vm_state"] == VmState.RESIZED and row["power_state"] != POWER_SHUTDOWN:
            how = GuestState.RUNNING
        wanted = [f"{row['host']} ({how})"] if how is not None else []
        if runs != wanted:
            found.append(f"instance {row['id']} is {row['vm_state']} on {row['host']} and runs on {runs}")
    return found + [f"guest {instance_id} runs on {runs} and has no row" for instance_id, runs in runs_on.items()]


def _rescued(world: World, rows: StoreSnapshot) -> list[str]:
    """What lives has begun from the disk that its row says, and no disk of a rebuild is left beside it."""
    found = []
    for row in rows.instances:
        host = None if row["host"] is None else world.fleet.hosts.get(row["host"])
        domain = None if host is None else host.domains.get(row["id"])
        is_rescued = row["vm_state"] == VmState.RESCUED.value
        shown = is_rescued or row["vm_state"] == VmState.ACTIVE.value
        if domain is not None and domain.state in LIVES and shown and domain.rescue is not is_rescued:
            began = "that of a rescue" if domain.rescue else "its own"
            found.append(f"instance {row['id']} is {row['vm_state']}, and the disk that it began from is {began}")
    for store in world.fleet.stores.values():
        found += [f"the new disk of {i} is left" for i, kind in store.spares if kind == SpareDisk.REBUILD.value]
    return found


def _leftovers(world: World, rows: StoreSnapshot) -> list[str]:
    """What is left of guests whose instance is deleted or lives elsewhere: domains, admissions, files, probes."""
    place = {row["id"]: row["host"] for row in rows.instances if not row["deleted"]}
    found = [
        f"{row['host']} still owes the removal of {row['id']}"
        for row in rows.instances
        if row["deleted"] and row["host"]
    ]
    for host in world.fleet.hosts.values():
        found += [
            f"{host.name} has a domain of {i}, whose place is {place.get(i)}"
            for i in host.domains
            if place.get(i) != host.name
        ]
        found += [f"{host.name} is in the middle of a call about {i}" for i in host.calls]
    waiting = {row["id"]: row["former"] for row in rows.instances if row["vm_state"] == VmState.RESIZED}
    for store in world.fleet.stores.values():
        found += [
            f"a copy of the disk of {i} as it was is left"
            for i, mark in store.kept
            if not (former := waiting.get(i)) or former["mark"] != mark
        ]
        if any(host.is_on for host in world.fleet.hosts.values() if host.store is store):
            found += [
                f"the disk of {i} is left, whose place is {place.get(i)}"
                for i in store.disks
                if not (at := place.get(i)) or world.fleet.hosts[at].store is not store
            ]
    return found + [f"a copy of {i} is still under way" for i in world.fleet.copies] + passing(world)


def passing(world: World) -> list[str]:
    """What a command that comes very late may leave, and what goes by itself: a guest that is expected is dismissed
    after the host's next report, a test file is swept by the hosts when it is old."""
    probes = [name for store in world.fleet.stores.values() for name in store.probes]
    objects = [f"the test object {name} is left in {pool}" for pool, name in world.fleet.roots.probes]
    return [f"the test file {name} is left" for name in probes] + objects + admitted(world)


def admitted(world: World) -> list[str]:
    """Guests that are still expected to arrive somewhere."""
    return [f"{host.name} still admits {i}" for host in world.fleet.hosts.values() for i in host.admitted]
