"""What was asked of a server, read from the sagas that did it."""

from __future__ import annotations

from typing import Any

from sqlalchemy import Select, select

from droveway.domain.faults import NotFound
from droveway.store.engine import order, results
from droveway.store.engine.transaction import Tx
from droveway.store.rows import ActionRow
from droveway.store.schema import instances, sagas

_KEYS = ((sagas.c.created_at_us, True), (sagas.c.id, True))


def _asked(instance_id: str) -> Select[Any]:
    """With the request that asked: what the program does of itself has none. `owner_id` is the user of the server."""
    return (
        select(sagas, instances.c.user_id.label("owner_id"))
        .join(instances, instances.c.id == sagas.c.instance_id)
        .where(sagas.c.instance_id == instance_id, sagas.c.request_id != "")
        .order_by(*order.clauses(_KEYS))
    )


def of_server(
    tx: Tx, instance_id: str, *, marker: str | None, limit: int, since_us: int | None, before_us: int | None
) -> list[ActionRow]:
    """Newest first. `marker` is the request of the last one of the page before; raises NotFound."""
    query = _asked(instance_id)
    if since_us is not None:
        query = query.where(sagas.c.updated_at_us >= since_us)
    if before_us is not None:
        query = query.where(sagas.c.updated_at_us <= before_us)
    if marker is not None:
        last = of_request(tx, instance_id, marker)
        query = query.where(order.behind(_KEYS, (last["created_at_us"], last["id"])))
    return results.every(ActionRow, tx.execute(query.limit(limit)))


def of_request(tx: Tx, instance_id: str, request_id: str) -> ActionRow:
    row = results.first(ActionRow, tx.execute(_asked(instance_id).where(sagas.c.request_id == request_id)))
    if row is None:
        raise NotFound(f"Action for request_id {request_id[:64]} on instance {instance_id} not found")
    return row
