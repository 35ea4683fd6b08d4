"""What an operator means by a word: an id, or a name that only one thing has."""

from __future__ import annotations

from sqlalchemy import ColumnElement, RowMapping, Table, select

from droveway.domain.faults import Conflict, NotFound
from droveway.store.engine.transaction import Tx
from droveway.store.schema import flavors, images, instances, server_groups

LISTS = {
    "flavor": "openstack flavor list --all",
    "image": "openstack image list",
    "server": "openstack server list --all-projects",
    "server group": "openstack server group list",
}


def flavor(tx: Tx, given: str) -> RowMapping:
    return _find(tx, flavors, "flavor", given)


def image(tx: Tx, given: str) -> RowMapping:
    return _find(tx, images, "image", given)


def server_group(tx: Tx, given: str) -> RowMapping:
    return _find(tx, server_groups, "server group", given)


def server(tx: Tx, given: str) -> RowMapping:
    """By its id a deleted one too, as long as its row is kept."""
    return _find(tx, instances, "server", given, instances.c.deleted.is_(False))


def _find(tx: Tx, table: Table, what: str, given: str, *by_name: ColumnElement[bool]) -> RowMapping:
    """Raises NotFound; Conflict when several have that name."""
    row = tx.execute(select(table).where(table.c.id == given)).mappings().first()
    if row is not None:
        return row
    rows = tx.execute(select(table).where(table.c.name == given, *by_name).limit(2)).mappings().all()
    if len(rows) > 1:
        raise Conflict(f"Several {what}s are named {given[:64]!r}: give the id; '{LISTS[what]}' shows it.")
    if not rows:
        raise NotFound(f"There is no {what} {given[:64]!r}; '{LISTS[what]}' shows those there are.")
    return rows[0]
