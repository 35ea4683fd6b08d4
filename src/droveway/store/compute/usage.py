"""What projects have used in a span of time: how long each of their servers was there, and how large it is."""

from __future__ import annotations

from collections.abc import Sequence

from sqlalchemy import or_, select

from droveway.store.compute.instances import get
from droveway.store.engine import order, results
from droveway.store.engine.transaction import Tx
from droveway.store.rows import UsageRow
from droveway.store.schema import instances

_C = instances.c
_SERVERS = select(
    _C.id,
    _C.name,
    _C.project_id,
    _C.vcpus,
    _C.ram_mb,
    _C.flavor,
    _C.vm_state,
    _C.launched_at_us,
    _C.terminated_at_us,
    _C.created_at_us,
)


def between(
    tx: Tx,
    since_us: int,
    until_us: int,
    *,
    project_id: str | None = None,
    marker: str | None = None,
    limit: int | None = None,
) -> Sequence[UsageRow]:
    """The servers that were there in that span, oldest first; one that never ran has used nothing. `marker` is the id
    of the last one of the page before; raises NotFound."""
    keys = ((_C.created_at_us, False), (_C.id, False))
    query = _SERVERS.where(
        _C.launched_at_us <= until_us, or_(_C.terminated_at_us.is_(None), _C.terminated_at_us >= since_us)
    ).order_by(*order.clauses(keys))
    if project_id is not None:
        query = query.where(_C.project_id == project_id)
    if marker is not None:
        last = get(tx, marker, project_id, deleted=True)
        query = query.where(order.behind(keys, (last["created_at_us"], last["id"])))
    return results.every(UsageRow, tx.execute(query if limit is None else query.limit(limit)))
