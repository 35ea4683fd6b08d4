"""Migrations as the API shows them, and the claim that each holds at its destination until it has switched."""

from __future__ import annotations

import functools
from typing import Any

from sqlalchemy import bindparam, insert, or_, select, update

from droveway.domain.faults import NotFound
from droveway.domain.model import CopyProgress, MigrationStatus
from droveway.store.engine import results
from droveway.store.engine.in_list import one_of
from droveway.store.engine.prepared import Prepared
from droveway.store.engine.transaction import Tx
from droveway.store.rows import InstanceRow, MigrationWithName
from droveway.store.schema import instances, migrations
from droveway.store.work import counters

_INSERT = Prepared(insert(migrations))
UNDER_WAY = (
    *(MigrationStatus.ACCEPTED, MigrationStatus.QUEUED, MigrationStatus.PREPARING, MigrationStatus.RUNNING),
    MigrationStatus.MIGRATING,
)
LIVE, COLD, RESIZE = "live-migration", "migration", "resize"


def create(tx: Tx, instance: InstanceRow, saga_id: str, params: dict[str, Any], kind: str = LIVE) -> None:
    """The row of a migration that has just been asked for. `params`: with the sizes of the new flavor, of a resize."""
    sizes = params.get("sizes") or {name: instance[name] for name in ("vcpus", "ram_mb", "disk_gb")}
    tx.execute(
        _INSERT,
        {
            "id": counters.next_number(tx, "migration"),
            "uuid": tx.names.uuid(),
            "instance_id": instance["id"],
            "migration_type": kind,
            "status": MigrationStatus.ACCEPTED.value,
            "source": instance["host"],
            "destination": params.get("destination"),
            "holds_claim": False,
            "saga_id": saga_id,
            **sizes,
            "user_id": params.get("user_id", instance["user_id"]),
            "project_id": params.get("project_id", instance["project_id"]),
            "created_at_us": tx.now_us,
            "updated_at_us": tx.now_us,
        },
    )


def set_(tx: Tx, saga_id: str, *, progress: CopyProgress | None = None, **values: Any) -> None:
    """Change the migration of that saga; `progress` fills the memory columns."""
    if progress is not None:
        values |= {
            "memory_total_bytes": progress.memory_total_bytes,
            "memory_processed_bytes": progress.memory_processed_bytes,
            "memory_remaining_bytes": progress.memory_remaining_bytes,
        }
    new = {f"new_{name}": value for name, value in values.items()}
    tx.execute(_update(tuple(values)), {"of": saga_id, "new_updated_at_us": tx.now_us, **new})


@functools.lru_cache(maxsize=64)
def _update(names: tuple[str, ...]) -> Prepared:
    """Built once for each set of columns: building costs more than running."""
    new: dict[str, Any] = {name: bindparam(f"new_{name}") for name in (*names, "updated_at_us")}
    return Prepared(update(migrations).where(migrations.c.saga_id == bindparam("of")).values(new))


def find(
    tx: Tx,
    *,
    project_id: str | None = None,
    instance_id: str | None = None,
    host: str | None = None,
    status: str | None = None,
    migration_type: str | None = None,
    source: str | None = None,
    under_way: bool = False,
    changed_since_us: int | None = None,
    changed_before_us: int | None = None,
    user_id: str | None = None,
    marker: str | None = None,
    limit: int = 1000,
) -> list[MigrationWithName]:
    """Migrations, newest first. `host` matches either end; `marker` is the uuid of the last row of the page before;
    raises NotFound when there is none."""
    before: int | None = None
    if marker is not None:
        before = tx.execute(_NUMBER, {"of": marker}).scalar()
        if before is None:
            raise NotFound(f"Migration {marker[:64]} could not be found.")
    asked = {
        "project_id": project_id,
        "instance_id": instance_id,
        "status": status,
        "migration_type": migration_type,
        "source": source,
        "user_id": user_id,
        "host": host,
        "changed_since_us": changed_since_us,
        "changed_before_us": changed_before_us,
        "before": before,
    }
    wanted = {name: value for name, value in asked.items() if value is not None}
    query = _query(tuple(wanted), under_way)
    return results.every(MigrationWithName, tx.execute(query, {**wanted, "most": limit}))


_NUMBER = Prepared(select(migrations.c.id).where(migrations.c.uuid == bindparam("of")))
_CONDITIONS = {
    "host": or_(migrations.c.source == bindparam("host"), migrations.c.destination == bindparam("host")),
    "changed_since_us": migrations.c.updated_at_us >= bindparam("changed_since_us"),
    "changed_before_us": migrations.c.updated_at_us <= bindparam("changed_before_us"),
    "before": migrations.c.id < bindparam("before"),
}


@functools.lru_cache(maxsize=256)
def _query(asked: tuple[str, ...], under_way: bool) -> Prepared:
    """Built once for each set of questions, like `_update`."""
    c = migrations.c
    query = select(migrations, instances.c.name.label("instance_name")).join(instances, instances.c.id == c.instance_id)
    for name in asked:
        query = query.where(_CONDITIONS[name] if name in _CONDITIONS else c[name] == bindparam(name))
    if under_way:
        query = query.where(one_of(c.status, [status.value for status in UNDER_WAY]))
    return Prepared(query.order_by(c.id.desc()).limit(bindparam("most")))
