"""An image of a server that begins from a volume: snapshots of its volumes, all of one moment, and an image without
data of its own that says of which snapshots a server is made."""

from __future__ import annotations

import json
from typing import Any

from droveway.api.compute.block_devices import OF_IMAGE
from droveway.api.wiring import Api
from droveway.domain.faults import Conflict, Forbidden, TooLarge
from droveway.domain.volume.model import AttachmentStatus, SnapshotStatus
from droveway.store.engine.transaction import Tx
from droveway.store.rows import InstanceRow
from droveway.store.volume import attachments, quotas, snapshots, volumes
from droveway.store.volume.quotas import Claim
from droveway.store.volume.rows import AttachmentRow, SnapshotRow, VolumeRow


def begins_from_volume(tx: Tx, row: InstanceRow) -> bool:
    return attachments.root_of(tx, row["id"]) is not None


def begin(tx: Tx, api: Api, row: InstanceRow, user_id: str, name: str) -> tuple[dict[str, str], dict[str, str]]:
    """The rows of the snapshots, which the saga makes true: by their volumes; and what the image says of them. Raises
    Conflict, Forbidden."""
    held = attachments.of_instance(tx, row["id"])
    made = [_snapshot(tx, api, one, user_id, name) for one in held]
    root = next(one for one in held if one["boot_index"] == 0)
    mapping = [_mapping(one, snapshot) for one, snapshot in zip(held, made, strict=True)]
    own = {
        OF_IMAGE: json.dumps(mapping, separators=(",", ":")),
        "bdm_v2": "True",
        "root_device_name": f"/dev/{root['device']}",
    }
    return {one["volume_id"]: one["id"] for one in made}, own


def _snapshot(tx: Tx, api: Api, held: AttachmentRow, user_id: str, name: str) -> SnapshotRow:
    volume: VolumeRow = volumes.get(tx, held["volume_id"])
    if held["status"] != AttachmentStatus.ATTACHED:
        raise Conflict(f"Volume {volume['id']} is {volume['status']}; wait until that has ended.")
    try:
        quotas.claim(
            tx, volume["project_id"], api.settings.volumes.quotas, Claim(snapshots=1, gigabytes=volume["size_gb"])
        )
    except TooLarge as fault:
        raise Forbidden(fault.reason) from None
    row = SnapshotRow(
        id=tx.names.uuid(),
        project_id=volume["project_id"],
        user_id=user_id,
        name=f"snapshot for {name}"[:255],
        description="",
        created_at_us=tx.now_us,
        updated_at_us=None,
        volume_id=volume["id"],
        size_gb=volume["size_gb"],
        status=SnapshotStatus.CREATING.value,
        metadata={},
        fault="",
        fence=0,
    )
    snapshots.insert_row(tx, row)
    return row


def _mapping(held: AttachmentRow, snapshot: SnapshotRow) -> dict[str, Any]:
    return {
        "source_type": "snapshot",
        "destination_type": "volume",
        "snapshot_id": snapshot["id"],
        "volume_size": snapshot["size_gb"],
        "boot_index": held["boot_index"] if held["boot_index"] >= 0 else None,
        "delete_on_termination": held["delete_on_termination"],
        "device_name": f"/dev/{held['device']}",
        "disk_bus": held["bus"],
        "tag": held["tag"],
    }
