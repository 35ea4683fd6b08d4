"""Quotas of block storage: what was set, what a project holds, and the claim, which is checked in the transaction that
writes the rows: writers stand in one queue, so no race exceeds a limit.

A volume that grows counts with the size that it is growing to. Snapshots count with the size of their volume.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import NamedTuple

from sqlalchemy import bindparam, delete, func, insert, select

from droveway.domain.quota import UNLIMITED
from droveway.domain.volume import quota
from droveway.domain.volume.quota import VolumeQuotas
from droveway.store.engine.prepared import Prepared
from droveway.store.engine.transaction import Tx
from droveway.store.volume import tables as t

DEFAULT = "class:default"
_v, _s, _b, _q = t.volumes.c, t.snapshots.c, t.backups.c, t.volume_quotas.c
_SIZE = func.coalesce(func.sum(func.coalesce(_v.growing_to_gb, _v.size_gb)), 0)
_SET = Prepared(select(_q.scope, _q.resource, _q.hard_limit).where(_q.scope.in_((DEFAULT, bindparam("of")))))
_OF_VOLUMES = Prepared(
    select(_v.volume_type_id, func.count(), _SIZE).where(_v.project_id == bindparam("of")).group_by(_v.volume_type_id)
)
_OF_SNAPSHOTS = Prepared(
    select(_v.volume_type_id, func.count(), func.coalesce(func.sum(_s.size_gb), 0))
    .select_from(t.snapshots.outerjoin(t.volumes, _v.id == _s.volume_id))
    .where(_s.project_id == bindparam("of"))
    .group_by(_v.volume_type_id)
)
_OF_BACKUPS = Prepared(
    select(func.count(), func.coalesce(func.sum(_b.size_gb), 0)).where(_b.project_id == bindparam("of"))
)


class Claim(NamedTuple):
    """What is about to be written."""

    volumes: int = 0
    gigabytes: int = 0
    snapshots: int = 0


def scope_of(project_id: str) -> str:
    return f"project:{project_id}"


def limits(tx: Tx, project_id: str | None, configured: VolumeQuotas) -> dict[str, int]:
    """Those of a project, or of one for which nothing was set; those of single types as far as there are any, under
    the names of the store."""
    scope = DEFAULT if project_id is None else scope_of(project_id)
    found: dict[str, dict[str, int]] = {DEFAULT: {}, scope: {}}
    for row in tx.execute(_SET, {"of": scope}):
        found[row.scope][row.resource] = row.hard_limit
    own = {name: getattr(configured, name) for name in quota.RESOURCES}
    return own | found[DEFAULT] | found[scope]


def used(tx: Tx, project_id: str) -> dict[str, int]:
    """Under the names of the store; one of a type that the project has nothing of is left out."""
    found = dict.fromkeys(quota.RESOURCES, 0)
    for type_id, count, size_gb in tx.execute(_OF_VOLUMES, {"of": project_id}):
        _add(found, type_id, {"volumes": int(count), "gigabytes": int(size_gb)})
    for type_id, count, size_gb in tx.execute(_OF_SNAPSHOTS, {"of": project_id}):
        _add(found, type_id, {"snapshots": int(count), "gigabytes": int(size_gb)})
    count, size_gb = tx.execute(_OF_BACKUPS, {"of": project_id}).one()
    return found | {"backups": int(count), "backup_gigabytes": int(size_gb)}


def _add(found: dict[str, int], type_id: str | None, more: Mapping[str, int]) -> None:
    for resource, number in more.items():
        found[resource] += number
        if type_id is not None:
            name = quota.of_type(resource, type_id)
            found[name] = found.get(name, 0) + number


# -- claims -----------------------------------------------------------------------------------------------------------
def claim(
    tx: Tx, project_id: str, configured: VolumeQuotas, more: Claim, volume_type: tuple[str, str] | None = None
) -> None:
    """So much is about to be written, of the type of that id and name. Raises TooLarge."""
    names = {resource: resource for resource in Claim._fields}
    _claim(tx, project_id, configured, more, names | ({} if volume_type is None else _names_of(volume_type)))


def claim_of_type(tx: Tx, project_id: str, configured: VolumeQuotas, more: Claim, volume_type: tuple[str, str]) -> None:
    """What is there already gets that type. Raises TooLarge."""
    _claim(tx, project_id, configured, more, _names_of(volume_type))


def _names_of(volume_type: tuple[str, str]) -> dict[str, str]:
    type_id, type_name = volume_type
    return {quota.of_type(resource, type_id): f"{resource}_{type_name}" for resource in quota.OF_TYPES}


def _claim(tx: Tx, project_id: str, configured: VolumeQuotas, more: Claim, names: Mapping[str, str]) -> None:
    most = limits(tx, project_id, configured)
    bound = {name: shown for name, shown in names.items() if most.get(name, UNLIMITED) != UNLIMITED}
    if not bound:
        return  # nothing to sum
    held = used(tx, project_id)
    for name, shown in bound.items():
        resource = name.partition(":")[0]
        quota.check(resource, shown, most[name], held.get(name, 0), getattr(more, resource))


def claim_backup(tx: Tx, project_id: str, configured: VolumeQuotas, size_gb: int) -> None:
    """One more backup, of a volume of that size. Raises TooLarge."""
    most = limits(tx, project_id, configured)
    held = used(tx, project_id)
    for resource, more in (("backups", 1), ("backup_gigabytes", size_gb)):
        quota.check(resource, resource, most[resource], held[resource], more)


# -- what administrators set ------------------------------------------------------------------------------------------
def set_(tx: Tx, scope: str, changes: Mapping[str, int]) -> None:
    if not changes:
        return
    forget(tx, scope, changes)
    rows = [{"scope": scope, "resource": name, "hard_limit": limit} for name, limit in sorted(changes.items())]
    tx.execute(insert(t.volume_quotas), rows)


def forget(tx: Tx, scope: str, resources: Iterable[str] | None = None) -> None:
    """Back to the defaults: of all resources, or of those."""
    query = delete(t.volume_quotas).where(_q.scope == scope)
    tx.execute(query if resources is None else query.where(_q.resource.in_(list(resources))))


def forget_type(tx: Tx, type_id: str) -> None:
    """With a type its limits go."""
    tx.execute(delete(t.volume_quotas).where(_q.resource.in_([quota.of_type(one, type_id) for one in quota.OF_TYPES])))
