"""What must hold: the laws that are asserted all the time, and what must be true once there is peace."""

from __future__ import annotations

from sqlalchemy import RowMapping, select

from droveway.domain.model import ENDED_SAGA, GuestState, MigrationStatus, SagaStatus, VmState
from droveway.simulation.world import World
from droveway.store import migrations as migrations_queries
from droveway.store.schema import instances, migrations, sagas
from droveway.store.transaction import Tx

FINAL_MIGRATION = {s.value for s in MigrationStatus} - {s.value for s in migrations_queries.UNDER_WAY}
LEGAL_ENDS = {SagaStatus.DONE.value, SagaStatus.UNDONE.value}
ENDED = {status.value for status in ENDED_SAGA}


def broken_laws(world: World) -> list[str]:
    """Everything that was found to be broken so far: by the physics, by the rows, by a process that fell over."""
    return [*world.fleet.violations, *world.database.broken_laws(), *world.violations, *_survivors(world)]


def _survivors(world: World) -> list[str]:
    """The dead run nothing: every task of a killed process has ended at the instant of its death, or just after."""
    found = [f"{process.name} was killed and still runs {process.running}" for process in world.dying
             if process.running]  # fmt: skip
    world.dying.clear()
    return found


def unsettled(world: World) -> list[str]:
    """Why it may not be said yet that everything has ended."""
    return [*_open(world), *_places(world), *_leftovers(world)]


class Rows:
    def __init__(self, tx: Tx) -> None:
        self.instances: list[RowMapping] = list(tx.execute(select(instances)).mappings())
        self.sagas: list[RowMapping] = list(tx.execute(select(sagas).where(sagas.c.ended.is_(False))).mappings())
        self.migrations: list[RowMapping] = list(tx.execute(select(migrations)).mappings())


def _open(world: World) -> list[str]:
    rows = world.database.look(Rows)
    found = [f"{row['kind']} {row['id']} of {row['instance_id']} is {row['status']} at {row['position']}, owner "
             f"{row['owner']}, blocked: {row['blocked']}" for row in rows.sagas]  # fmt: skip
    found += [f"migration {row['uuid']} is {row['status']}, holds a claim: {row['holds_claim']}"
              for row in rows.migrations if row["status"] not in FINAL_MIGRATION or row["holds_claim"]]  # fmt: skip
    found += [f"instance {row['id']} still shows {row['task_state']}" for row in rows.instances
              if row["task_state"] is not None]  # fmt: skip
    found += [f"{control.name} carries {control.control.runner.running} sagas" for control in world.controls.values()
              if control.control.runner is not None and control.control.runner.running and not rows.sagas]  # fmt: skip
    return found


def _places(world: World) -> list[str]:
    """Every instance is exactly where and what its row says."""
    found = []
    for row in world.database.look(Rows).instances:
        runs_on = world.fleet.where_runs(row["id"])
        wanted = [row["host"]] if row["vm_state"] == VmState.ACTIVE.value else []
        if runs_on != wanted:
            found.append(f"instance {row['id']} is {row['vm_state']} on {row['host']} and runs on {runs_on}")
    return found


def _leftovers(world: World) -> list[str]:
    """What hosts hold of guests whose instance is deleted or lives elsewhere: domains, files, probes, admissions."""
    places = {row["id"]: row["host"] for row in world.database.look(Rows).instances}
    return world.fleet.leftovers(places)


__all__ = ["ENDED", "LEGAL_ENDS", "GuestState", "broken_laws", "unsettled"]
