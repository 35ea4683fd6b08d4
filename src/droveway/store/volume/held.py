"""How much of a backend each project has."""

from __future__ import annotations

from collections.abc import Iterable
from typing import NamedTuple

from sqlalchemy import func, select

from droveway.store.engine.transaction import Tx
from droveway.store.volume.tables import snapshots, volumes

_V, _S = volumes.c, snapshots.c


class Held(NamedTuple):
    volumes: int = 0
    volumes_gb: int = 0
    snapshots: int = 0
    snapshots_gb: int = 0


def by_projects(tx: Tx, backend: str) -> dict[str, Held]:
    found: dict[str, Held] = {}
    of_volumes = (
        select(_V.project_id, func.count(), func.coalesce(func.sum(_V.size_gb), 0))
        .where(_V.host == backend)
        .group_by(_V.project_id)
    )
    of_snapshots = (
        select(_S.project_id, func.count(), func.coalesce(func.sum(_S.size_gb), 0))
        .join(volumes, _V.id == _S.volume_id)
        .where(_V.host == backend)
        .group_by(_S.project_id)
    )
    for project_id, number, size_gb in tx.execute(of_volumes):
        found[project_id] = Held(int(number), int(size_gb))
    for project_id, number, size_gb in tx.execute(of_snapshots):
        found[project_id] = found.get(project_id, Held())._replace(snapshots=int(number), snapshots_gb=int(size_gb))
    return dict(sorted(found.items()))


def total(held: Iterable[Held]) -> Held:
    return Held(*(sum(column) for column in zip(*held, strict=True))) if (held := list(held)) else Held()
