"""The ageing out of what was deleted, has ended or was said long ago."""

from __future__ import annotations

from sqlalchemy import delete, or_, select

from droveway.store.compute import actions, placements, predictions
from droveway.store.engine.transaction import Tx
from droveway.store.identity.tables import tokens
from droveway.store.image import images
from droveway.store.schema import hosts, instances, migrations, sagas
from droveway.store.volume import messages
from droveway.store.volume import placements as volume_placements
from droveway.store.work import events


def forget_old(tx: Tx, kept_us: int, batch: int) -> bool:
    """Forget at most `batch` rows of each kind; whether there may be more. A deleted instance goes with its migrations,
    and its fence with it: no command about it can be on its way after so long."""
    before_us = tx.now_us - kept_us
    awaits_removal = instances.c.host.in_(select(hosts.c.name))  # a deferred cleanup: kept
    gone = select(instances.c.id).where(
        instances.c.deleted.is_(True),
        instances.c.terminated_at_us < before_us,
        or_(instances.c.host.is_(None), ~awaits_removal),
    )
    old = select(sagas.c.id).where(sagas.c.ended.is_(True), sagas.c.updated_at_us < before_us)
    forgotten = [
        events.forget_before(tx, before_us, batch),
        placements.forget_before(tx, before_us, batch),
        actions.forget_before(tx, before_us, batch),
        predictions.forget_before(tx, before_us, batch),
        tx.execute(delete(tokens).where(tokens.c.expires_at_us < tx.now_us)).rowcount,
        tx.execute(delete(sagas).where(sagas.c.id.in_(old.limit(batch)))).rowcount,
        tx.execute(delete(migrations).where(migrations.c.instance_id.in_(gone.limit(batch)))).rowcount,
        tx.execute(
            delete(instances).where(
                instances.c.id.in_(gone.limit(batch)), instances.c.id.not_in(select(migrations.c.instance_id))
            )
        ).rowcount,
        images.forget_deleted(tx, before_us, batch),
        messages.forget_expired(tx, batch),
        volume_placements.forget_old(tx, before_us, batch),
    ]
    return max(forgotten) >= batch
