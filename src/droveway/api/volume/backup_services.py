"""Whether there is anybody to make backups and restore them."""

from __future__ import annotations

from droveway.domain.faults import Busy
from droveway.domain.service_kinds import BACKUP
from droveway.store.engine.transaction import Tx
from droveway.store.fleet import services


def must_have_backups(tx: Tx) -> None:
    """Raises Busy, as Cinder answers."""
    if not services.list_all(tx, None, BACKUP):
        raise Busy(f"Service {BACKUP} could not be found: no host of this cloud makes backups.")
