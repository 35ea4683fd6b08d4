"""Server groups: servers that want to be together on one host, or apart. A member is a living server that names it."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import msgspec
from sqlalchemy import bindparam, delete, insert, select, tuple_, update

from droveway.domain.faults import NotFound
from droveway.domain.placement import GroupPolicy
from droveway.store.engine import results
from droveway.store.engine.in_list import in_list
from droveway.store.engine.prepared import Prepared
from droveway.store.engine.transaction import Tx
from droveway.store.rows import ServerGroupRow
from droveway.store.schema import instances, server_groups

_GET = Prepared(select(server_groups).where(server_groups.c.id == bindparam("of")))


class NewGroup(msgspec.Struct, frozen=True):
    project_id: str
    user_id: str
    name: str
    policy: GroupPolicy
    max_server_per_host: int | None = None  # of anti-affinity


def create(tx: Tx, new: NewGroup) -> ServerGroupRow:
    group_id = tx.names.uuid()
    tx.execute(
        insert(server_groups),
        {
            "id": group_id,
            "project_id": new.project_id,
            "user_id": new.user_id,
            "name": new.name,
            "policy": new.policy.value,
            "max_server_per_host": new.max_server_per_host,
            "created_at_us": tx.now_us,
        },
    )
    return get(tx, group_id)


def get(tx: Tx, group_id: str, project_id: str | None = None) -> ServerGroupRow:
    """That group; another project's is as absent as one that never was."""
    row = results.first(ServerGroupRow, tx.execute(_GET, {"of": group_id}))
    if row is None or project_id not in (None, row["project_id"]):
        raise NotFound(f"Instance group {group_id} could not be found.")
    return row


def find(
    tx: Tx, project_id: str | None, *, after: str | None = None, offset: int = 0, limit: int
) -> Sequence[ServerGroupRow]:
    """Groups of that project, or of all, the oldest first; `after` that group. Raises NotFound."""
    c = server_groups.c
    query = select(server_groups).order_by(c.created_at_us, c.id).offset(offset).limit(limit)
    if after is not None:
        last = get(tx, after, project_id)
        query = query.where(tuple_(c.created_at_us, c.id) > (last["created_at_us"], last["id"]))
    return results.every(
        ServerGroupRow, tx.execute(query if project_id is None else query.where(c.project_id == project_id))
    )


def members(tx: Tx, ids: Iterable[str]) -> dict[str, list[str]]:
    """The ids of the members of each group, in the order in which they were made."""
    found: dict[str, list[str]] = {group_id: [] for group_id in ids}
    c = instances.c
    query = select(c.server_group_id, c.id).where(in_list(c.server_group_id, found), c.deleted.is_(False))
    for row in tx.execute(query.order_by(c.number)):
        found[row.server_group_id].append(row.id)
    return found


def remove(tx: Tx, group_id: str, project_id: str | None = None) -> None:
    """Its servers stay where they are; no rule binds them any longer."""
    get(tx, group_id, project_id)
    tx.execute(update(instances).where(instances.c.server_group_id == group_id).values(server_group_id=None))
    tx.execute(delete(server_groups).where(server_groups.c.id == group_id))
