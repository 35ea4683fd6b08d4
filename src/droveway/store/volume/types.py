"""Types of volumes: what a volume may be made as, who may use which, and the default of a project.

There is one from the start, so that a volume can be made in an empty cloud.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from sqlalchemy import ColumnElement, bindparam, delete, insert, or_, select, update

from droveway.domain.faults import BadRequest, Conflict, NotFound
from droveway.store.engine import results
from droveway.store.engine.prepared import Prepared
from droveway.store.engine.transaction import Tx
from droveway.store.volume import quotas
from droveway.store.volume.rows import VolumeTypeRow
from droveway.store.volume.tables import (
    volume_type_access,
    volume_type_defaults,
    volume_types,
    volumes,
)

FIRST = "__DEFAULT__"
_C, _A, _D = volume_types.c, volume_type_access.c, volume_type_defaults.c
_GET = Prepared(select(volume_types).where(or_(_C.id == bindparam("of"), _C.name == bindparam("of"))))
_NAMES = Prepared(select(_C.id, _C.name))
_MAY = Prepared(
    select(_A.project_id).where(_A.volume_type_id == bindparam("of"), _A.project_id == bindparam("project"))
)
_DEFAULT_OF = Prepared(select(_D.volume_type_id).where(_D.project_id == bindparam("of")))
_USED = Prepared(select(volumes.c.id).where(volumes.c.volume_type_id == bindparam("of")).limit(1))


def seed(tx: Tx) -> bool:
    """The first type of an empty cloud. One that an operator deleted does not come back while any is left."""
    if tx.execute(select(_C.id).limit(1)).first() is not None:
        return False
    create(tx, FIRST, "The type of volumes that name none", {}, is_public=True)
    return True


def get(tx: Tx, given: str, project_id: str | None = None) -> VolumeTypeRow:
    """By its id or its name; one that the project may not use is as absent as one that never was. `project_id`: None
    for who may use all. Raises NotFound."""
    rows = results.every(VolumeTypeRow, tx.execute(_GET, {"of": given}))
    for row in sorted(rows, key=lambda row: row["id"] != given):
        if row["is_public"] or project_id is None or _may_use(tx, row["id"], project_id):
            return row
    raise NotFound(f"Volume type {given[:64]} could not be found.")


def _may_use(tx: Tx, type_id: str, project_id: str) -> bool:
    return tx.execute(_MAY, {"of": type_id, "project": project_id}).first() is not None


def default(tx: Tx, project_id: str | None, configured: str) -> VolumeTypeRow:
    """The project's own, or the one that the configuration names. Raises NotFound with the way out."""
    if project_id is not None:
        own = tx.execute(_DEFAULT_OF, {"of": project_id}).scalar()
        if own is not None:
            return get(tx, own)
    rows = results.every(VolumeTypeRow, tx.execute(_GET, {"of": configured or FIRST}))
    if not rows:
        raise NotFound(
            f"Default volume type {configured or FIRST} can not be found: an administrator makes it with 'openstack "
            "volume type create', or names another one as volume.default_type; until then each volume names its type."
        )
    return rows[0]


def names(tx: Tx) -> dict[str, str]:
    """The name of each type by its id."""
    return {row[0]: row[1] for row in tx.execute(_NAMES)}


def visible(project_id: str) -> ColumnElement[bool]:
    """Which types a project may use."""
    mine = select(_A.volume_type_id).where(_A.project_id == project_id)
    return or_(_C.is_public.is_(True), _C.id.in_(mine))


def create(
    tx: Tx, name: str, description: str | None, extra_specs: Mapping[str, str], *, is_public: bool
) -> VolumeTypeRow:
    _must_be_free(tx, name)
    row = VolumeTypeRow(
        id=tx.names.uuid(),
        name=name,
        description=description,
        is_public=is_public,
        extra_specs=dict(extra_specs),
        qos_id=None,
        created_at_us=tx.now_us,
        updated_at_us=None,
    )
    tx.execute(insert(volume_types), dict(row))
    return row


def _must_be_free(tx: Tx, name: str) -> None:
    if tx.execute(select(_C.id).where(_C.name == name)).first() is not None:
        raise Conflict(f"Volume Type {name[:64]} already exists.")


def change(tx: Tx, type_id: str, **values: Any) -> VolumeTypeRow:
    row = get(tx, type_id)
    if values.get("name", row["name"]) != row["name"]:
        _must_be_free(tx, values["name"])
    tx.execute(update(volume_types).where(_C.id == type_id).values(**values, updated_at_us=tx.now_us))
    return get(tx, type_id)


def remove(tx: Tx, type_id: str) -> None:
    """Raises BadRequest while volumes are of it, or projects have it as their default."""
    row = get(tx, type_id)
    if tx.execute(_USED, {"of": row["id"]}).first() is not None:
        raise BadRequest(
            f"Invalid volume type: Volume Type {row['id']} deletion is not allowed with existing volumes with the type."
        )
    of = tx.execute(select(_D.project_id).where(_D.volume_type_id == row["id"]).limit(1)).scalar()
    if of is not None:
        raise BadRequest(f"Volume type {row['id']} is the default of project {of} and cannot be deleted.")
    tx.execute(delete(volume_type_access).where(_A.volume_type_id == row["id"]))
    tx.execute(delete(volume_types).where(_C.id == row["id"]))
    quotas.forget_type(tx, row["id"])


# -- who may use one that is not public -------------------------------------------------------------------------------
def access(tx: Tx, type_id: str) -> list[str]:
    return list(tx.execute(select(_A.project_id).where(_A.volume_type_id == type_id).order_by(_A.project_id)).scalars())


def allow(tx: Tx, type_id: str, project_id: str) -> None:
    if _may_use(tx, type_id, project_id):
        raise Conflict(f"Volume type access for {type_id} / {project_id} combination already exists.")
    tx.execute(insert(volume_type_access), {"volume_type_id": type_id, "project_id": project_id})


def disallow(tx: Tx, type_id: str, project_id: str) -> None:
    gone = delete(volume_type_access).where(_A.volume_type_id == type_id, _A.project_id == project_id)
    if tx.execute(gone).rowcount == 0:
        raise NotFound(f"Volume type access not found for {type_id} / {project_id} combination.")


# -- defaults of projects ---------------------------------------------------------------------------------------------
def defaults(tx: Tx) -> list[tuple[str, str]]:
    """Each project that has one, with the type's id."""
    rows = tx.execute(select(_D.project_id, _D.volume_type_id).order_by(_D.project_id))
    return [(row[0], row[1]) for row in rows]


def default_of(tx: Tx, project_id: str) -> str | None:
    found: str | None = tx.execute(_DEFAULT_OF, {"of": project_id}).scalar()
    return found


def set_default(tx: Tx, project_id: str, type_id: str | None) -> None:
    """None: that of the configuration again."""
    tx.execute(delete(volume_type_defaults).where(_D.project_id == project_id))
    if type_id is not None:
        tx.execute(insert(volume_type_defaults), {"project_id": project_id, "volume_type_id": type_id})


# -- quality of service -----------------------------------------------------------------------------------------------
def of_qos(tx: Tx, qos_id: str) -> Sequence[VolumeTypeRow]:
    return results.every(VolumeTypeRow, tx.execute(select(volume_types).where(_C.qos_id == qos_id).order_by(_C.name)))
