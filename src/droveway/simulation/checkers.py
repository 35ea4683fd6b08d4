"""What must hold: the laws that are asserted all the time, and what must be true once there is peace."""

from __future__ import annotations

from sqlalchemy import RowMapping, select

from droveway.domain.model import MigrationStatus, VmState
from droveway.simulation.world import World
from droveway.store.migrations import UNDER_WAY
from droveway.store.schema import instances, migrations, sagas
from droveway.store.transaction import Tx

FINAL_MIGRATION = {status.value for status in MigrationStatus} - {status.value for status in UNDER_WAY}


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


def unsettled(world: World) -> list[str]:
    """Why it may not be said yet that everything has ended."""
    rows = world.database.look(Rows)
    return [*_open(world, rows), *_places(world, rows), *_leftovers(world, rows)]


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


def _places(world: World, rows: Rows) -> list[str]:
    """Every instance is exactly where and what its row says."""
    found = []
    for row in rows.instances:
        runs_on = world.fleet.where_runs(row["id"])
        wanted = [row["host"]] if row["vm_state"] == VmState.ACTIVE.value else []
        if runs_on != wanted:
            found.append(f"instance {row['id']} is {row['vm_state']} on {row['host']} and runs on {runs_on}")
    return found


def _leftovers(world: World, rows: Rows) -> list[str]:
    """What hosts hold of guests whose instance is deleted or lives elsewhere: domains, files, probes, admissions."""
    return world.fleet.leftovers({row["id"]: row["host"] for row in rows.instances})
