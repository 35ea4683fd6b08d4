"""What an operator means by a word: an id, or a name that only one thing has."""

from __future__ import annotations

from typing import TypeVar

from sqlalchemy import ColumnElement, Table, select

from droveway.domain.faults import Conflict, NotFound
from droveway.store.engine import results
from droveway.store.engine.transaction import Tx
from droveway.store.rows import FlavorRow, ImageRow, InstanceRow, ServerGroupRow
from droveway.store.schema import flavors, images, instances, server_groups
from droveway.store.volume.rows import VolumeRow
from droveway.store.volume.tables import volumes

_R = TypeVar("_R")
LISTS = {
    "flavor": "openstack flavor list --all",
    "image": "openstack image list",
    "server": "openstack server list --all-projects",
    "server group": "openstack server group list",
    "volume": "openstack volume list --all-projects",
}


def flavor(tx: Tx, given: str) -> FlavorRow:
    return _find(tx, FlavorRow, flavors, "flavor", given)


def image(tx: Tx, given: str) -> ImageRow:
    return _find(tx, ImageRow, images, "image", given)


def server_group(tx: Tx, given: str) -> ServerGroupRow:
    return _find(tx, ServerGroupRow, server_groups, "server group", given)


def server(tx: Tx, given: str) -> InstanceRow:
    """By its id a deleted one too, as long as its row is kept."""
    return _find(tx, InstanceRow, instances, "server", given, instances.c.deleted.is_(False))


def volume(tx: Tx, given: str) -> VolumeRow:
    return _find(tx, VolumeRow, volumes, "volume", given)


def _find(tx: Tx, row_type: type[_R], table: Table, what: str, given: str, *by_name: ColumnElement[bool]) -> _R:
    """Raises NotFound; Conflict when several have that name."""
    row = results.first(row_type, tx.execute(select(table).where(table.c.id == given)))
    if row is not None:
        return row
    rows = results.every(row_type, tx.execute(select(table).where(table.c.name == given, *by_name).limit(2)))
    if len(rows) > 1:
        raise Conflict(f"Several {what}s are named {given[:64]!r}: give the id; '{LISTS[what]}' shows it.")
    if not rows:
        raise NotFound(f"There is no {what} {given[:64]!r}; '{LISTS[what]}' shows those there are.")
    return rows[0]
