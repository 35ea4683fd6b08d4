"""Flavors, their extra specs, and which projects may use one that is not public."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from sqlalchemy import (
    BindParameter,
    ColumnElement,
    String,
    and_,
    bindparam,
    delete,
    insert,
    or_,
    select,
    update,
)

from droveway.domain.faults import Conflict, NotFound
from droveway.domain.model import Flavor
from droveway.store.engine import order, results
from droveway.store.engine.prepared import Prepared
from droveway.store.engine.transaction import Tx
from droveway.store.rows import FlavorRow
from droveway.store.schema import flavor_access, flavors

SEEDED = (
    Flavor(id="tiny", name="tiny", vcpus=1, ram_mb=128, disk_gb=1),
    Flavor(id="small", name="small", vcpus=1, ram_mb=512, disk_gb=2),
    Flavor(id="medium", name="medium", vcpus=2, ram_mb=1024, disk_gb=10),
)


def seed(tx: Tx) -> bool:
    """The first flavors of an empty cloud. One that an operator deleted does not come back while any is left."""
    if tx.execute(select(flavors.c.id).limit(1)).first() is not None:
        return False
    for flavor in SEEDED:
        create(tx, flavor)
    return True


def create(tx: Tx, flavor: Flavor) -> FlavorRow:
    """Add a flavor. Conflict when its id or its name is taken."""
    taken = tx.execute(
        select(flavors.c.id).where(or_(flavors.c.id == flavor.id, flavors.c.name == flavor.name))
    ).first()
    if taken is not None:
        which = f"id {flavor.id}" if taken.id == flavor.id else f"name {flavor.name}"
        raise Conflict(f"There is a flavor with the {which} already.")
    tx.execute(
        insert(flavors).values(
            id=flavor.id,
            name=flavor.name,
            vcpus=flavor.vcpus,
            ram_mb=flavor.ram_mb,
            disk_gb=flavor.disk_gb,
            ephemeral_gb=flavor.ephemeral_gb,
            swap_mb=flavor.swap_mb,
            rxtx_factor=flavor.rxtx_factor,
            is_public=flavor.is_public,
            disabled=flavor.disabled,
            description=flavor.description,
            extra_specs=flavor.extra_specs,
        )
    )
    return get(tx, flavor.id)


def _usable_by(project_id: str | BindParameter[str]) -> ColumnElement[bool]:
    """Public, or opened to that project."""
    mine = select(flavor_access.c.flavor_id).where(flavor_access.c.project_id == project_id)
    return or_(flavors.c.is_public, flavors.c.id.in_(mine))


_ONE = select(flavors).where(flavors.c.id == bindparam("of"))
_GET = Prepared(_ONE)
_GET_USABLE = Prepared(_ONE.where(_usable_by(bindparam("of_project", type_=String()))))


def get(tx: Tx, flavor_id: str, project_id: str | None = None) -> FlavorRow:
    """A flavor by id; for a project only one that it may use, the others being absent."""
    if project_id is None:
        row = results.first(FlavorRow, tx.execute(_GET, {"of": flavor_id}))
    else:
        row = results.first(FlavorRow, tx.execute(_GET_USABLE, {"of": flavor_id, "of_project": project_id}))
    if row is None:
        raise NotFound(f"Flavor {flavor_id} could not be found.")
    return row


SORTABLE = {
    "flavorid": flavors.c.id,
    "id": flavors.c.id,
    "name": flavors.c.name,
    "memory_mb": flavors.c.ram_mb,
    "vcpus": flavors.c.vcpus,
    "root_gb": flavors.c.disk_gb,
    "ephemeral_gb": flavors.c.ephemeral_gb,
    "swap": flavors.c.swap_mb,
    "rxtx_factor": flavors.c.rxtx_factor,
    "is_public": flavors.c.is_public,
    "disabled": flavors.c.disabled,
    "description": flavors.c.description,
}


def find(
    tx: Tx,
    *,
    is_public: bool | None,
    project_id: str,
    min_ram_mb: int = 0,
    min_disk_gb: int = 0,
    sort_key: str = "flavorid",
    descending: bool = False,
    marker: str | None = None,
    limit: int | None = None,
) -> Sequence[FlavorRow]:
    """Flavors in order; with the public ones come those that are open to the project of the caller. `marker` is the
    id of the last one of the page before."""
    conditions: list[ColumnElement[bool]] = [flavors.c.ram_mb >= min_ram_mb, flavors.c.disk_gb >= min_disk_gb]
    if is_public is not None:
        conditions.append(_usable_by(project_id) if is_public else flavors.c.is_public.is_(False))
    column = SORTABLE[sort_key]
    by = order.clauses(((column, descending), (flavors.c.id, descending)))
    rows = results.every(FlavorRow, tx.execute(select(flavors).where(*conditions).order_by(*by)))
    start = 0
    if marker is not None:
        ids = [row["id"] for row in rows]
        if marker not in ids:
            raise NotFound(f"marker {marker} could not be found.")
        start = ids.index(marker) + 1
    return rows[start:] if limit is None else rows[start : start + limit]


def remove(tx: Tx, flavor_id: str) -> None:
    """Servers made from it keep their own copy."""
    tx.execute(delete(flavor_access).where(flavor_access.c.flavor_id == flavor_id))
    if tx.execute(delete(flavors).where(flavors.c.id == flavor_id)).rowcount == 0:
        raise NotFound(f"Flavor {flavor_id} could not be found.")


def describe(tx: Tx, flavor_id: str, description: str | None) -> FlavorRow:
    get(tx, flavor_id)
    tx.execute(update(flavors).where(flavors.c.id == flavor_id).values(description=description))
    return get(tx, flavor_id)


def respec(tx: Tx, flavor_id: str, change: Callable[[dict[str, str]], dict[str, str]]) -> None:
    """`change` makes the new extra specs out of those that are there. Servers that run keep theirs."""
    row = get(tx, flavor_id)
    specs = change(dict(row["extra_specs"]))
    tx.execute(update(flavors).where(flavors.c.id == flavor_id).values(extra_specs=specs))


# -- access -----------------------------------------------------------------------------------------------------------
def access(tx: Tx, flavor_id: str) -> list[str]:
    """The projects to which it is open."""
    c = flavor_access.c
    return list(tx.execute(select(c.project_id).where(c.flavor_id == flavor_id).order_by(c.project_id)).scalars())


def _one_access(flavor_id: str, project_id: str) -> ColumnElement[bool]:
    return and_(flavor_access.c.flavor_id == flavor_id, flavor_access.c.project_id == project_id)


def open_to(tx: Tx, flavor_id: str, project_id: str) -> None:
    if tx.execute(select(flavor_access.c.flavor_id).where(_one_access(flavor_id, project_id))).first() is not None:
        raise Conflict(f"Flavor access already exists for flavor {flavor_id} and project {project_id} combination.")
    tx.execute(insert(flavor_access), {"flavor_id": flavor_id, "project_id": project_id})


def close_to(tx: Tx, flavor_id: str, project_id: str) -> None:
    if tx.execute(delete(flavor_access).where(_one_access(flavor_id, project_id))).rowcount == 0:
        raise NotFound(f"Flavor access not found for {flavor_id} / {project_id} combination.")


def as_model(row: FlavorRow) -> Flavor:
    return Flavor(
        id=row["id"],
        name=row["name"],
        vcpus=row["vcpus"],
        ram_mb=row["ram_mb"],
        disk_gb=row["disk_gb"],
        ephemeral_gb=row["ephemeral_gb"],
        swap_mb=row["swap_mb"],
        rxtx_factor=row["rxtx_factor"],
        is_public=row["is_public"],
        disabled=row["disabled"],
        description=row["description"],
        extra_specs=row["extra_specs"],
    )
