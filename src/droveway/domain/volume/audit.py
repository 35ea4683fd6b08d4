"""What is wrong between the rows of volumes and what their backends say they have; pure.

A volume counts as quiet when no saga was at work on it before its backend was asked nor after, and neither its fence
nor its place moved in between: only then may what a backend says be held against its row.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping

import msgspec

from droveway.domain.audit_findings import Finding, finding
from droveway.domain.volume.model import SnapshotStatus, StoredVolume, VolumeStatus

ORPHANED = "orphaned volume"
THERE = frozenset({VolumeStatus.AVAILABLE, VolumeStatus.RESERVED, VolumeStatus.IN_USE})
VolumeSeen = tuple[int, str | None]  # a volume's fence, and where it lies


class AuditedVolume(msgspec.Struct, frozen=True):
    """Of its row what an audit looks at. `snapshots`: each with its status; `hosts`: those its attachment names."""

    id: str
    host: str | None
    status: str
    fence: int
    snapshots: dict[str, str] = {}
    hosts: frozenset[str] = frozenset()


class AuditedBackend(msgspec.Struct, frozen=True):
    """`down`: why its service is; empty while it is up. `is_away`: it was stopped, or was never there."""

    name: str
    volumes: int
    down: str = ""
    is_away: bool = False


class VolumeRows(msgspec.Struct):
    volumes: dict[str, AuditedVolume] = {}
    backends: dict[str, AuditedBackend] = {}
    busy: set[str] = set()  # volumes that a saga needs which has not ended


class BackendListing(msgspec.Struct, frozen=True):
    """What one backend says it has, asked afresh."""

    backend: str
    volumes: tuple[StoredVolume, ...] = ()


class _Case(msgspec.Struct):
    rows: VolumeRows
    listings: dict[str, dict[str, StoredVolume]]  # by backend, by volume
    quiet: set[str]
    known: Mapping[str, VolumeSeen]  # before the backends were asked


def audit(rows: VolumeRows, listings: Iterable[BackendListing], before: Mapping[str, VolumeSeen]) -> list[Finding]:
    quiet = {
        row.id
        for row in rows.volumes.values()
        if row.id not in rows.busy and before.get(row.id) == (row.fence, row.host)
    }
    by_backend = {one.backend: {volume.volume_id: volume for volume in one.volumes} for one in listings}
    case = _Case(rows, by_backend, quiet, before)
    return [found for rule in RULES for found in rule(case)]


def _lost(case: _Case) -> Iterator[Finding]:
    """What is shown as there lies on its backend."""
    for row in case.rows.volumes.values():
        there = case.listings.get(row.host or "")
        if there is None or row.id not in case.quiet or row.host is None:
            continue
        stored = there.get(row.id)
        if stored is None:
            if row.status in THERE:
                reason = f"it is {row.status}, and its backend does not have it"
                yield finding("lost volume", f"volume {row.id}", row.host, reason, subject=row.id)
            continue
        for snapshot_id, status in row.snapshots.items():
            if status == SnapshotStatus.AVAILABLE and snapshot_id not in stored.snapshots:
                reason = f"it is {status}, and its backend does not have it"
                yield finding("lost snapshot", f"snapshot {snapshot_id}", row.host, reason, subject=snapshot_id)


def _left_over(case: _Case) -> Iterator[Finding]:
    """What lies on a backend has a row that says so."""
    for backend, there in case.listings.items():
        for volume_id, stored in there.items():
            row = case.rows.volumes.get(volume_id)
            what = f"volume {volume_id}"
            if row is None and volume_id in case.known:
                continue  # it was deleted meanwhile
            if row is None:
                yield finding(ORPHANED, what, backend, "no row names it", subject=volume_id)
            elif volume_id not in case.quiet:
                continue
            elif row.host != backend:
                reason = f"its row says that it lies on {row.host or 'no backend'}"
                yield finding("volume left", what, backend, reason, subject=volume_id)
            elif left := sorted(set(stored.snapshots) - row.snapshots.keys()):
                reason = f"it has snapshots there without a row: {', '.join(left)}"
                yield finding("snapshots left", what, backend, reason, subject=volume_id)


def _admissions(case: _Case) -> Iterator[Finding]:
    """A host is admitted to what its server has."""
    for backend, there in case.listings.items():
        for volume_id, stored in there.items():
            row = case.rows.volumes.get(volume_id)
            if row is None or volume_id not in case.quiet or row.host != backend:
                continue
            if forgotten := sorted(set(stored.holders) - row.hosts):
                reason = f"{', '.join(forgotten)} may open it, and no attachment says so"
                yield finding("forgotten admission", f"volume {volume_id}", backend, reason, subject=volume_id)


def _unserved(case: _Case) -> Iterator[Finding]:
    """A backend that was taken out of its host's configuration keeps what lies there."""
    for one in case.rows.backends.values():
        if one.volumes and one.is_away:
            reason = f"{one.volumes} volumes lie there, and no service has it: {one.down}"
            yield finding("unserved backend", f"backend {one.name}", one.name, reason, subject=one.name)


RULES: tuple[Callable[[_Case], Iterator[Finding]], ...] = (_lost, _left_over, _admissions, _unserved)
