"""The audit's rules for volumes as a table."""

from __future__ import annotations

import pytest

from droveway.domain.audit_findings import KINDS
from droveway.domain.volume.audit import AuditedBackend, AuditedVolume, BackendListing, VolumeRows, VolumeSeen, audit
from droveway.domain.volume.model import StoredVolume

KINDS_OF_VOLUMES = {
    "lost volume",
    "lost snapshot",
    "forgotten admission",
    "unserved backend",
    "volume left",
    "snapshots left",
    "orphaned volume",
}
ON, GIB = "h1@fast", 1 << 30


def row(status: str = "available", host: str | None = ON, hosts: tuple[str, ...] = (), **snapshots: str) -> VolumeRows:
    of = AuditedVolume("v", host, status, 3, snapshots, frozenset(hosts))
    return VolumeRows({"v": of}, {ON: AuditedBackend(ON, 1)})


def there(volume_id: str = "v", snapshots: tuple[str, ...] = (), holders: tuple[str, ...] = ()) -> BackendListing:
    return BackendListing(ON, (StoredVolume(volume_id, GIB, snapshots, holders),))


NOTHING = BackendListing(ON)
CASES: tuple[tuple[str, VolumeRows, BackendListing, set[str]], ...] = (
    ("all is well", row(), there(), set()),
    ("attached where its row says", row("in-use", hosts=("h2",)), there(holders=("h2",)), set()),
    ("gone from its backend", row(), NOTHING, {"lost volume"}),
    ("one that failed need not be there", row("error"), NOTHING, set()),
    ("a snapshot is gone", row(s="available"), there(), {"lost snapshot"}),
    ("one that failed need not be", row(s="error"), there(), set()),
    ("no row names it", VolumeRows(), there(), {"orphaned volume"}),
    ("it lies elsewhere", row(host="h2@slow"), there(), {"volume left"}),
    ("a snapshot without a row", row(), there(snapshots=("s",)), {"snapshots left"}),
    ("a host that no attachment names", row(), there(holders=("h2",)), {"forgotten admission"}),
    (
        "its service was taken away",
        VolumeRows(backends={ON: AuditedBackend(ON, 2, "gone", True)}),
        NOTHING,
        {"unserved backend"},
    ),
)


@pytest.mark.parametrize(
    ("name", "rows", "listing", "kinds"), CASES, ids=lambda one: one if isinstance(one, str) else ""
)
def test_what_is_found(name: str, rows: VolumeRows, listing: BackendListing, kinds: set[str]) -> None:
    before: dict[str, VolumeSeen] = {one.id: (one.fence, one.host) for one in rows.volumes.values()}
    assert {one.kind for one in audit(rows, [listing], before)} == kinds
    if rows.volumes:
        assert audit(rows, [listing], {"v": (2, ON)}) == [], "something has begun since"
        rows.busy.add("v")
        assert audit(rows, [listing], before) == [], "a saga is at work"


def test_every_kind_is_found() -> None:
    assert {kind for *_, kinds in CASES for kind in kinds} == KINDS_OF_VOLUMES < set(KINDS)
