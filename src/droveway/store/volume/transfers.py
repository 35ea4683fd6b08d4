"""Transfers: a volume that is given to another project, which takes it with a key that was told once."""

from __future__ import annotations

import hashlib
import hmac

from sqlalchemy import delete, insert, select, update

from droveway.domain.faults import BadRequest, NotFound
from droveway.domain.volume.lifecycle import Verb
from droveway.domain.volume.model import VolumeStatus
from droveway.domain.volume.quota import VolumeQuotas
from droveway.store.engine import results
from droveway.store.engine.transaction import Tx
from droveway.store.volume import making, quotas, types, volumes
from droveway.store.volume.quotas import Claim
from droveway.store.volume.rows import SnapshotRow, TransferRow, VolumeRow
from droveway.store.volume.tables import snapshots, volume_transfers
from droveway.store.volume.tables import volumes as volume_table

_C = volume_transfers.c
KEY_CHARACTERS = 16


def get(tx: Tx, transfer_id: str, project_id: str | None = None) -> TransferRow:
    """Raises NotFound."""
    row = results.first(TransferRow, tx.execute(select(volume_transfers).where(_C.id == transfer_id)))
    if row is None or project_id not in (None, row["project_id"]):
        raise NotFound(f"Transfer {transfer_id[:64]} could not be found.")
    return row


def _hash(key: str) -> str:
    return hashlib.sha256(key.encode("utf-8", "surrogateescape")).hexdigest()


def create(tx: Tx, volume: VolumeRow, name: str | None, *, no_snapshots: bool) -> tuple[TransferRow, str]:
    """The row and the key. Raises BadRequest."""
    making.must_be_allowed(tx, Verb.TRANSFER, volume)
    key = tx.names.secret()[:KEY_CHARACTERS]
    row = TransferRow(
        id=tx.names.uuid(),
        volume_id=volume["id"],
        project_id=volume["project_id"],
        name=name,
        key_hash=_hash(key),
        no_snapshots=no_snapshots,
        created_at_us=tx.now_us,
    )
    tx.execute(insert(volume_transfers), dict(row))
    volumes.set_(tx, volume["id"], status=VolumeStatus.AWAITING_TRANSFER.value, previous_status=volume["status"])
    return row, key


def cancel(tx: Tx, row: TransferRow) -> None:
    _end(tx, row)


def _end(tx: Tx, row: TransferRow, **values: str) -> None:
    tx.execute(delete(volume_transfers).where(_C.id == row["id"]))
    volume = volumes.get(tx, row["volume_id"])
    if volume["status"] == VolumeStatus.AWAITING_TRANSFER:
        values["status"] = VolumeStatus.AVAILABLE.value
    volumes.set_(tx, volume["id"], **values)


def accept(tx: Tx, row: TransferRow, key: str, project_id: str, user_id: str, configured: VolumeQuotas) -> TransferRow:
    """The volume is that project's from now on, and so are its snapshots. Raises BadRequest, TooLarge."""
    if not hmac.compare_digest(_hash(key), row["key_hash"]):
        raise BadRequest(f"Invalid auth key: Attempt to transfer {row['id']} with invalid auth key.")
    volume = volumes.get(tx, row["volume_id"])
    if volume["status"] != VolumeStatus.AWAITING_TRANSFER:
        raise BadRequest(f"Invalid volume: Volume {volume['id']} is {volume['status']}, and not awaiting-transfer.")
    own = results.every(SnapshotRow, tx.execute(select(snapshots).where(snapshots.c.volume_id == volume["id"])))
    if own and row["no_snapshots"]:
        raise BadRequest(
            f"Invalid volume: Volume {volume['id']} has snapshots, which cannot be left behind: the transfer was made "
            "without them."
        )
    its_type = volume["volume_type_id"]
    if its_type is not None:
        _must_be_usable(tx, its_type, project_id)
    more = Claim(1, volume["size_gb"] + sum(one["size_gb"] for one in own), len(own))
    names = None if its_type is None else (its_type, types.names(tx).get(its_type, ""))
    quotas.claim(tx, project_id, configured, more, names)
    tx.execute(
        update(snapshots)
        .where(snapshots.c.volume_id == volume["id"])
        .values(project_id=project_id, user_id=user_id, updated_at_us=tx.now_us)
    )
    tx.execute(
        update(volume_table).where(volume_table.c.id == volume["id"]).values(project_id=project_id, user_id=user_id)
    )
    _end(tx, row)
    return row


def _must_be_usable(tx: Tx, type_id: str, project_id: str) -> None:
    try:
        types.get(tx, type_id, project_id)
    except NotFound:
        raise BadRequest(f"Invalid volume: its type {type_id} is not one that your project may use.") from None
