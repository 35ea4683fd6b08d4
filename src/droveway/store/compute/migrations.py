"""Migrations as the API shows them, and the claim that each holds at its destination until it has switched."""

from __future__ import annotations

import functools
from typing import Any

import msgspec
from sqlalchemy import and_, bindparam, func, insert, or_, select, update

from droveway.domain.faults import NotFound
from droveway.domain.model import CopyProgress, MigrationStatus, SagaStatus
from droveway.store.engine import results
from droveway.store.engine.in_list import one_of
from droveway.store.engine.prepared import Prepared
from droveway.store.engine.transaction import Tx
from droveway.store.rows import InstanceRow, MigrationRow, MigrationWithName
from droveway.store.schema import instances, migrations, sagas
from droveway.store.work import counters

_INSERT = Prepared(insert(migrations))
UNDER_WAY = (
    *(MigrationStatus.ACCEPTED, MigrationStatus.QUEUED, MigrationStatus.PREPARING, MigrationStatus.RUNNING),
    MigrationStatus.MIGRATING,
)
NUMBER_DIGITS_MAX = 15
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


class ShownProgress(msgspec.Struct, frozen=True):
    """What is shown of a copy beside how many bytes there are. `time_left_s`: if the guest goes on as it does; None
    when it would not end so, or nothing is known."""

    policy: str = ""
    iteration: int = 0
    elapsed_ms: int = 0
    rate_bytes_s: int = 0
    dirty_bytes_s: int = 0
    throttle_percent: int = 0
    downtime_ms: int = 0  # as it is expected
    downtime_max_ms: int = 0  # as it is allowed now
    time_left_s: float | None = None
    post_copy: str = "none"
    paused: bool = False  # for the sake of its copy


def set_(tx: Tx, saga_id: str, **values: Any) -> None:
    """Change the migration of that saga."""
    new = {f"new_{name}": value for name, value in values.items()}
    tx.execute(_update(tuple(values)), {"of": saga_id, "new_updated_at_us": tx.now_us, **new})


def show_turn(tx: Tx, saga_id: str, *, is_queued: bool) -> None:
    """Whether it waits in line. Of one that waits there no longer nothing is changed: another control may have gone on
    with it, and ended it."""
    status = MigrationStatus.QUEUED if is_queued else MigrationStatus.PREPARING
    tx.execute(_SHOW_TURN, {"of": saga_id, "new_status": status.value, "now_us": tx.now_us})


def set_progress(tx: Tx, saga_id: str, seen: CopyProgress, shown: ShownProgress) -> None:
    names = (f"{of}_{what}_bytes" for of in ("memory", "disk") for what in ("total", "processed", "remaining"))
    counted = {name: getattr(seen, name) for name in names}
    set_(tx, saga_id, **counted, progress=msgspec.to_builtins(shown))


def is_forced(tx: Tx, saga_id: str) -> bool:
    """Whether it is to complete at any price that its policy allows."""
    return bool(tx.execute(_FORCED, {"of": saga_id}).scalar())


def was_split(tx: Tx, saga_id: str) -> bool:
    """Whether its guest has been seen in post-copy."""
    progress = tx.execute(_PROGRESS, {"of": saga_id}).scalar()
    return bool(progress) and progress["post_copy"] != "none"


def force(tx: Tx, saga_id: str) -> None:
    """It is to complete at any price that its policy allows. Its runner finds that by itself."""
    set_(tx, saga_id, forced=True)
    tx.nudges.append(f"saga:{saga_id}")


def named(tx: Tx, given: str) -> MigrationWithName | None:
    """By its number or its uuid."""
    is_number = given.isascii() and given.isdecimal() and len(given) <= NUMBER_DIGITS_MAX
    query = _query(("id" if is_number else "uuid",), under_way=False)
    wanted = {"id": int(given)} if is_number else {"uuid": given}
    found = results.every(MigrationWithName, tx.execute(query, {**wanted, "most": 1}))
    return found[0] if found else None


def queue_place(tx: Tx, row: MigrationRow) -> int:
    """Among those that wait to leave the same host, from 1 on; 0: it does not wait."""
    if row["status"] != MigrationStatus.QUEUED:
        return 0
    return 1 + int(tx.execute(_QUEUED_BEFORE, {"of": row["id"], "host": row["source"]}).scalar_one())


def ahead(tx: Tx, saga_id: str) -> int:
    """How many are to leave the same host before it: those that were asked for earlier, and those that are copied
    already. One that is undone or broken copies nothing, and may wait for an operator: nobody waits for it."""
    return int(tx.execute(_AHEAD, {"of": saga_id}).scalar_one())


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


_BEFORE_COPY = [
    status.value for status in (MigrationStatus.ACCEPTED, MigrationStatus.QUEUED, MigrationStatus.PREPARING)
]
_FORCED = Prepared(select(migrations.c.forced).where(migrations.c.saga_id == bindparam("of")))
_PROGRESS = Prepared(select(migrations.c.progress).where(migrations.c.saga_id == bindparam("of")))
_it = migrations.alias("it")
# One that still waits for another saga of its server has no place in the line.
_IN_LINE = [status.value for status in UNDER_WAY if status is not MigrationStatus.ACCEPTED]
_AHEAD = Prepared(
    select(func.count())
    .select_from(migrations)
    .join(_it, and_(migrations.c.source == _it.c.source, migrations.c.id != _it.c.id))
    .join(sagas, sagas.c.id == migrations.c.saga_id)
    .where(
        _it.c.saga_id == bindparam("of"),
        migrations.c.migration_type == _it.c.migration_type,
        one_of(migrations.c.status, _IN_LINE),
        or_(migrations.c.id < _it.c.id, migrations.c.status == MigrationStatus.RUNNING.value),
        sagas.c.status == SagaStatus.FORWARD.value,
    )
)
_SHOW_TURN = Prepared(
    update(migrations)
    .where(migrations.c.saga_id == bindparam("of"), one_of(migrations.c.status, _BEFORE_COPY))
    .values(status=bindparam("new_status"), updated_at_us=bindparam("now_us"))
)
_QUEUED_BEFORE = Prepared(
    select(func.count()).where(
        migrations.c.source == bindparam("host"),
        migrations.c.id < bindparam("of"),
        one_of(migrations.c.status, [MigrationStatus.QUEUED.value]),
    )
)
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
