"""The rows of volumes that an audit looks at, and the repair that is a saga."""

from __future__ import annotations

from typing import Any

from sqlalchemy import select

from droveway.domain.audit_findings import Finding
from droveway.domain.faults import NotFound
from droveway.domain.liveness import State
from droveway.domain.model import SagaKind, SubjectKind
from droveway.domain.service_kinds import VOLUME
from droveway.domain.volume.audit import AuditedBackend, AuditedVolume, VolumeRows, VolumeSeen
from droveway.domain.volume.model import of_volume
from droveway.store.engine.prepared import Prepared
from droveway.store.engine.transaction import Tx
from droveway.store.schema import sagas as s
from droveway.store.schema import services
from droveway.store.volume import volumes
from droveway.store.volume.tables import snapshots, volume_attachments
from droveway.store.volume.tables import volumes as v
from droveway.store.work import sagas, subjects

_VOLUMES = Prepared(select(v.c.id, v.c.host, v.c.moving_to, v.c.status, v.c.fence))
_SNAPSHOTS = Prepared(select(snapshots.c.id, snapshots.c.volume_id, snapshots.c.status))
_A = volume_attachments.c
_ATTACHED = Prepared(select(_A.volume_id, _A.host, _A.to_host))
_OPEN = Prepared(select(s.c.subject_id).where(s.c.ended.is_(False), s.c.subject_kind == SubjectKind.VOLUME.value))
_SERVICES = Prepared(
    select(services.c.host, services.c.is_up, services.c.state, services.c.reason).where(services.c.binary == VOLUME)
)
NO_FENCE = -1
_AWAY = (State.STOPPED, State.EXPECTED)


def before(tx: Tx) -> tuple[dict[str, VolumeSeen], dict[str, str]]:
    """Every volume, of those that are not at rest without a fence; and the backends, each with why its service is
    down."""
    busy = _busy(tx)
    seen = {row.id: (NO_FENCE if row.id in busy else row.fence, row.host) for row in tx.execute(_VOLUMES)}
    return seen, {row.host: "" if row.is_up else f"it is down: {row.reason}" for row in tx.execute(_SERVICES)}


def rows(tx: Tx) -> VolumeRows:
    made: dict[str, dict[str, str]] = {}
    for one in tx.execute(_SNAPSHOTS):
        made.setdefault(one.volume_id, {})[one.id] = one.status
    hosts = {
        row.volume_id: frozenset(host for host in (row.host, row.to_host) if host) for row in tx.execute(_ATTACHED)
    }
    found, counts = dict[str, AuditedVolume](), dict[str, int]()
    for row in tx.execute(_VOLUMES):
        of = row.id
        found[of] = AuditedVolume(of, row.host, row.status, row.fence, made.get(of, {}), hosts.get(of, frozenset()))
        for place in {row.host, row.moving_to} - {None}:
            counts[place] = counts.get(place, 0) + 1
    backends = {row.host: _backend(row, counts.pop(row.host, 0)) for row in tx.execute(_SERVICES)}
    for name, count in counts.items():
        backends[name] = AuditedBackend(name, count, "there is no such service", is_away=True)
    return VolumeRows(found, backends, _busy(tx))


def _backend(row: Any, count: int) -> AuditedBackend:
    return AuditedBackend(
        row.host, count, "" if row.is_up else row.reason, is_away=not row.is_up and row.state in _AWAY
    )


def _busy(tx: Tx) -> set[str]:
    """Those that a saga which has not ended needs."""
    return {*tx.execute(_OPEN).scalars(), *subjects.beside(tx, SubjectKind.VOLUME)}


def tidy(tx: Tx, finding: Finding, _rows: object) -> str:
    """The saga looks again, in its turn, and ends what no row wants. Why nothing is done; empty: it is under way."""
    try:
        row = volumes.get(tx, finding.subject)
    except NotFound:
        return "its volume was deleted meanwhile"
    params = {"backend": finding.where}
    sagas.enqueue(tx, SagaKind.TIDY_VOLUME, of_volume(row["id"]), row["project_id"], params, request_id="")
    return ""
