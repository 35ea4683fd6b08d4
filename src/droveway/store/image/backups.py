"""Backups of a server: images that name it and their kind, of which a number is kept."""

from __future__ import annotations

from droveway.store.engine.transaction import Tx
from droveway.store.image import images

SERVER, KIND = "instance_uuid", "backup_type"  # properties of an image
LOOKED_AT_MAX = 1000


def rotate(tx: Tx, project_id: str, instance_id: str, kind: str, kept: int) -> int:
    """Delete the oldest of that kind but for `kept`; how many went. A protected one stays, and counts."""
    wanted = images.Filters(
        project_id=project_id,
        exact={"project_id": project_id},
        properties={SERVER: instance_id, KIND: kind},
        limit=LOOKED_AT_MAX,
    )
    old = [row for row in images.find(tx, wanted)[kept:] if not row["protected"]]
    for row in old:
        images.remove(tx, row["id"], project_id, keep_data=True)
    return len(old)
