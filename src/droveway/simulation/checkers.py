"""What must hold: the laws that are asserted all the time, and what must be true once there is peace."""

from __future__ import annotations

from sqlalchemy import RowMapping, select

from droveway.domain.model import GuestState, MigrationStatus, SagaKind, SagaStatus, VmState
from droveway.simulation.world import World
from droveway.store.migrations import UNDER_WAY
from droveway.store.schema import instances, migrations, sagas, services
from droveway.store.transaction import Tx

FINAL_MIGRATION = {status.value for status in MigrationStatus} - {status.value for status in UNDER_WAY}
LIVES = {GuestState.RUNNING, GuestState.PAUSED}


def broken_laws(world: World) -> list[str]:
    """Everything that was found to be broken so far: by the physics, by the rows, by a process that fell over."""
    return [*world.fleet.violations, *world.database.broken_laws(), *world.violations, *_survivors(world)]


def _survivors(world: World) -> list[str]:
    """The dead run nothing: by the time somebody looks, every task of a killed process has ended."""
    found = [f"{process.name} was killed and still runs {process.running}" for process in world.dying
             if process.running]  # fmt: skip
    world.dying.clear()
    return found


class Rows:
    """What the store says, read at one moment."""

    def __init__(self, tx: Tx) -> None:
        self.instances: list[RowMapping] = list(tx.execute(select(instances)).mappings())
        self.sagas: list[RowMapping] = list(tx.execute(select(sagas).where(sagas.c.ended.is_(False))).mappings())
        self.migrations: list[RowMapping] = list(tx.execute(select(migrations)).mappings())
        self.services: list[RowMapping] = list(tx.execute(select(services)).mappings())
        stops = (sagas.c.kind == SagaKind.STOP.value) | (
            (sagas.c.kind == SagaKind.HARD_REBOOT.value) & (sagas.c.status == SagaStatus.UNDONE.value)
        )
        self.stopped_by_somebody: set[str] = set(tx.execute(select(sagas.c.instance_id).where(stops)).scalars())


def unsettled(world: World) -> list[str]:
    """Why it may not be said yet that everything has ended."""
    rows = world.database.look(Rows)
    return [*_open(world, rows), *_hosts(rows), *_places(world, rows), *_stopped(world, rows), *_leftovers(world, rows)]


def _open(world: World, rows: Rows) -> list[str]:
    found = [f"{row['kind']} {row['id']} of {row['instance_id']} is {row['status']} at {row['position']}, owner "
             f"{row['owner']}, blocked: {row['blocked']}" for row in rows.sagas]  # fmt: skip
    found += [f"migration {row['uuid']} is {row['status']}, holds a claim: {row['holds_claim']}"
              for row in rows.migrations if row["status"] not in FINAL_MIGRATION or row["holds_claim"]]  # fmt: skip
    found += [f"instance {row['id']} still shows {row['task_state']}" for row in rows.instances
              if row["task_state"] is not None]  # fmt: skip
    for process in world.controls.values():
        runner = process.control.runner
        if runner is not None and runner.running and not rows.sagas:
            found.append(f"{process.name} still carries {runner.running} sagas and none is open")
    return found


def _hosts(rows: Rows) -> list[str]:
    """Every agent lives by now, and everybody has seen it."""
    return [f"{row['binary']} on {row['host']} is shown down: {row['sentence']}" for row in rows.services
            if not row["is_up"]]  # fmt: skip


def _stopped(world: World, rows: Rows) -> list[str]:
    """What is stopped was stopped by somebody, or crashed by itself: a host's crash and a migration stop nobody."""
    may_be = rows.stopped_by_somebody | world.crashed_guests
    return [f"instance {row['id']} is stopped, and nobody stopped it" for row in rows.instances
            if row["vm_state"] == VmState.STOPPED.value and row["id"] not in may_be]  # fmt: skip


def _places(world: World, rows: Rows) -> list[str]:
    """Every instance is exactly where and what its row says."""
    runs_on: dict[str, list[str]] = {}
    for host in world.fleet.hosts.values():
        for instance_id, domain in host.domains.items():
            if domain.state in LIVES:
                runs_on.setdefault(instance_id, []).append(f"{host.name} ({domain.state})")
    found = []
    for row in rows.instances:
        runs = runs_on.pop(row["id"], [])
        wanted = [f"{row['host']} (running)"] if row["vm_state"] == VmState.ACTIVE.value else []
        if runs != wanted:
            found.append(f"instance {row['id']} is {row['vm_state']} on {row['host']} and runs on {runs}")
    return found + [f"guest {instance_id} runs on {runs} and is nobody's" for instance_id, runs in runs_on.items()]


def _leftovers(world: World, rows: Rows) -> list[str]:
    """What is left of guests whose instance is deleted or lives elsewhere: domains, admissions, files, probes."""
    place = {row["id"]: row["host"] for row in rows.instances if not row["deleted"]}
    found = []
    for host in world.fleet.hosts.values():
        found += [f"{host.name} has a domain of {i}, whose place is {place.get(i)}"
                  for i in host.domains if place.get(i) != host.name]  # fmt: skip
        found += [f"{host.name} still admits {i}" for i in host.admitted]
        found += [f"{host.name} is in the middle of a call about {i}" for i in host.calls]
    for store in world.fleet.stores.values():
        found += [f"the disk of {i} is left, whose place is {place.get(i)}" for i in store.disks if not place.get(i)]
        found += [f"the test file {name} is left" for name in store.probes]
    return found + [f"a copy of {i} is still under way" for i in world.fleet.copies]
