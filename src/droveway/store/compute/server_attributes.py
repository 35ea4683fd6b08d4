"""What users change of a server without touching its guest: names, metadata, tags, and whether it is locked. What its
guest is told of itself reaches its host with the next plan of networks (decision 030)."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from droveway.domain.model import LockedBy
from droveway.store.compute import instances, server_ports
from droveway.store.engine.transaction import Tx
from droveway.store.network import changes
from droveway.store.schema import instances as instances_table

TOLD = frozenset({"name", "hostname", "metadata"})  # to the guest


def change(tx: Tx, instance_id: str, **values: Any) -> None:
    """Set these columns."""
    if not values:
        return
    instances.set_(tx, instance_id, **values)
    if TOLD.intersection(values) and server_ports.has_any(tx, instance_id):
        changes.changed(tx, instances_table, instance_id)


def set_metadata(tx: Tx, instance_id: str, metadata: Mapping[str, str]) -> None:
    change(tx, instance_id, metadata=dict(metadata))


def set_tags(tx: Tx, instance_id: str, tags: Iterable[str]) -> None:
    change(tx, instance_id, tags=list(dict.fromkeys(tags)))


def lock(tx: Tx, instance_id: str, by: LockedBy, reason: str | None) -> None:
    change(tx, instance_id, locked=True, locked_by=by.value, locked_reason=reason)


def unlock(tx: Tx, instance_id: str) -> None:
    change(tx, instance_id, locked=False, locked_by=None, locked_reason=None)
