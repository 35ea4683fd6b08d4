"""What users change of a server without touching its guest: names, metadata, tags, and whether it is locked. What its
guest is told of itself reaches its host with the next plan of networks (decision 030)."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from sqlalchemy import bindparam, update

from droveway.domain.model import LockedBy
from droveway.store.compute import instances, server_ports
from droveway.store.engine.prepared import Prepared
from droveway.store.engine.transaction import Tx
from droveway.store.network import changes
from droveway.store.schema import instances as instances_table

TOLD = frozenset({"name", "hostname", "metadata", "guest_password"})  # to the guest
_c = instances_table.c
_TAKE_PASSWORD = Prepared(
    update(instances_table)
    .where(
        _c.id == bindparam("of"),
        _c.host == bindparam("at"),
        _c.deleted.is_(False),
        _c.guest_password.is_(None),
    )
    .values(guest_password=bindparam("new_password"))
)


def change(tx: Tx, instance_id: str, **values: Any) -> None:
    """Set these columns."""
    if not values:
        return
    instances.set_(tx, instance_id, **values)
    if TOLD.intersection(values) and server_ports.has_any(tx, instance_id):
        changes.changed(tx, instances_table, instance_id)


def take_guest_password(tx: Tx, host: str, instance_id: str, password: str) -> bool:
    """What its guest has set, as that host says. False: the server is not there, or has one already."""
    taken = tx.execute(_TAKE_PASSWORD, {"of": instance_id, "at": host, "new_password": password}).rowcount > 0
    if taken:
        changes.changed(tx, instances_table, instance_id)
    return taken


def set_metadata(tx: Tx, instance_id: str, metadata: Mapping[str, str]) -> None:
    change(tx, instance_id, metadata=dict(metadata))


def set_tags(tx: Tx, instance_id: str, tags: Iterable[str]) -> None:
    change(tx, instance_id, tags=list(dict.fromkeys(tags)))


def lock(tx: Tx, instance_id: str, by: LockedBy, reason: str | None) -> None:
    change(tx, instance_id, locked=True, locked_by=by.value, locked_reason=reason)


def unlock(tx: Tx, instance_id: str) -> None:
    change(tx, instance_id, locked=False, locked_by=None, locked_reason=None)
