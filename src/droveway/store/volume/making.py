"""How work on volumes and snapshots begins: the row, its status, what it takes of the quota and the saga that will do
it, in one transaction. The API comes here, and so does the boot of a
server from a volume."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple

import msgspec
from sqlalchemy import bindparam, select

from droveway.domain.faults import BadRequest, Conflict
from droveway.domain.model import SagaKind, Subject, VmState
from droveway.domain.volume import lifecycle, quota
from droveway.domain.volume.lifecycle import LIFECYCLE, Verb
from droveway.domain.volume.model import Clone, SnapshotStatus, VolumeStatus, of_snapshot, of_volume
from droveway.domain.volume.quota import VolumeQuotas
from droveway.store.engine.in_list import one_of
from droveway.store.engine.prepared import Prepared
from droveway.store.engine.transaction import Tx
from droveway.store.schema import instances
from droveway.store.volume import attachments, backends, quotas, snapshots, volumes
from droveway.store.volume.quotas import Claim
from droveway.store.volume.rows import SnapshotRow, VolumeRow, VolumeTypeRow
from droveway.store.volume.tables import snapshots as snapshot_table
from droveway.store.volume.tables import volume_attachments
from droveway.store.volume.tables import volumes as volume_table
from droveway.store.work import sagas

NAMED_MAX = 8  # volumes, in a sentence
_V = volume_table.c
_BEING_MADE = one_of(_V.status, (VolumeStatus.CREATING.value, VolumeStatus.DOWNLOADING.value))
_MADE_OF_SNAPSHOT = Prepared(select(_V.id).where(_V.snapshot_id == bindparam("of"), _BEING_MADE).limit(1))
_MADE_OF_VOLUME = Prepared(select(_V.id).where(_V.source_volume_id == bindparam("of"), _BEING_MADE).limit(1))
# Volumes made of its snapshots, on the same backend.
_CLONES = Prepared(
    select(_V.id)
    .where(
        _V.snapshot_id.in_(select(snapshot_table.c.id).where(snapshot_table.c.volume_id == bindparam("of"))),
        _V.host == bindparam("at"),
        _V.id != bindparam("of"),
    )
    .order_by(_V.id)
    .limit(NAMED_MAX)
)
_WRITTEN_BY = Prepared(
    select(instances.c.name)
    .join_from(volume_attachments, instances, instances.c.id == volume_attachments.c.instance_id)
    .where(
        volume_attachments.c.volume_id == bindparam("of"),
        one_of(instances.c.vm_state, tuple(state.value for state in (VmState.ACTIVE, VmState.PAUSED, VmState.RESCUED))),
    )
)


class Asked(NamedTuple):
    """By which request, and by whom."""

    request_id: str
    user_id: str | None = None


class NewVolume(msgspec.Struct, frozen=True):
    """What is known of a volume that is to be made; everything has been checked but its sources and the quota.
    `volume_type`: its id and its name."""

    project_id: str
    user_id: str
    size_gb: int
    name: str | None = None
    description: str | None = None
    zone: str = "nova"
    volume_type: tuple[str, str] | None = None
    snapshot_id: str | None = None
    source_volume_id: str | None = None
    image_id: str | None = None
    metadata: dict[str, str] = {}
    image_metadata: dict[str, str] = {}
    bootable: bool = False
    hints: dict[str, Any] | None = None
    requested_backend: str | None = None  # HOST@BACKEND
    request_id: str = ""


def create(tx: Tx, new: NewVolume, configured: VolumeQuotas) -> VolumeRow:
    """The row of a volume and the saga that makes it. Raises BadRequest, Conflict, TooLarge: its source is not there
    or cannot be used now, or the quota has no room."""
    _check_source(tx, new)
    quota.check_size(quotas.limits(tx, new.project_id, configured), new.size_gb)
    quotas.claim(tx, new.project_id, configured, Claim(volumes=1, gigabytes=new.size_gb), new.volume_type)
    row = VolumeRow(
        id=tx.names.uuid(),
        project_id=new.project_id,
        user_id=new.user_id,
        name=new.name,
        description=new.description,
        created_at_us=tx.now_us,
        updated_at_us=None,
        size_gb=new.size_gb,
        status=VolumeStatus.CREATING.value,
        previous_status=None,
        migration_status=None,
        zone=new.zone,
        host=None,
        moving_to=None,
        volume_type_id=new.volume_type[0] if new.volume_type else None,
        snapshot_id=new.snapshot_id,
        source_volume_id=new.source_volume_id,
        image_id=new.image_id,
        disk_format="raw",
        bootable=new.bootable,
        read_only=False,
        metadata=new.metadata,
        image_metadata=new.image_metadata,
        hints=new.hints,
        growing_to_gb=None,
        fault="",
        launched_at_us=None,
        fence=sagas.FIRST_FENCE,
    )
    volumes.insert_row(tx, row)
    sagas.enqueue_first(
        tx,
        SagaKind(Verb.CREATE.value),
        of_volume(row["id"]),
        new.project_id,
        {"requested_backend": new.requested_backend},
        request_id=new.request_id,
        user_id=new.user_id,
    )
    return row


def _must_be_promised(tx: Tx, row: VolumeRow, guarantee: str, otherwise: str) -> None:
    """What a driver does not declare is refused before anything is written. Raises BadRequest."""
    if row["host"] is not None and not getattr(backends.guarantees_of(tx, row["host"]), guarantee):
        raise BadRequest(f"Invalid volume: the storage of volume {row['id']} {otherwise}.")


def _must_be_at_rest(tx: Tx, row: VolumeRow) -> None:
    """Where a snapshot is a copy, which of a volume that is being written would be of no one moment. Raises
    BadRequest."""
    if row["host"] is None or backends.guarantees_of(tx, row["host"]).clone is not Clone.COPY:
        return
    name = tx.execute(_WRITTEN_BY, {"of": row["id"]}).scalar()
    if name is not None:
        raise BadRequest(
            f"Invalid volume: the storage of volume {row['id']} copies what it takes a snapshot of, and server "
            f"{name[:64]} is writing it: stop that server, or detach the volume, or back it up."
        )


def revert(tx: Tx, row: VolumeRow, snapshot_id: str, asked: Asked) -> None:
    """To its latest snapshot, which the caller has looked for. Raises BadRequest."""
    must_be_allowed(tx, Verb.REVERT, row)
    _must_be_promised(tx, row, "reverts", "does not go back to a snapshot: make a volume of the snapshot")
    begin(tx, Verb.REVERT, row, {"snapshot_id": snapshot_id}, asked)


def _check_source(tx: Tx, new: NewVolume) -> None:
    """In the transaction that writes the row: a source that is deleted after it finds the row, and waits."""
    if new.snapshot_id is not None:
        snapshot = snapshots.get(tx, new.snapshot_id)
        sentence = lifecycle.snapshot_use_refusal(snapshot["id"], snapshot["status"])
        if sentence is not None:
            raise BadRequest(sentence)
        _check_size(new.size_gb, snapshot["size_gb"], "snapshot size")
    if new.source_volume_id is not None:
        source = volumes.get(tx, new.source_volume_id)
        sentence = lifecycle.refusal(Verb.CLONE, source["id"], source["status"])
        if sentence is not None:
            raise BadRequest(sentence)
        _check_size(new.size_gb, source["size_gb"], "original volume size")


def _check_size(size_gb: int, least_gb: int, what: str) -> None:
    if size_gb < least_gb:
        raise BadRequest(
            f"Invalid input received: Volume size {size_gb}GB cannot be smaller than the {what} {least_gb}GB. It "
            f"must be >= {what} {least_gb}."
        )


def begin(
    tx: Tx,
    verb: Verb,
    row: VolumeRow,
    params: Mapping[str, Any],
    asked: Asked,
    *,
    force: bool = False,
    values: Mapping[str, Any] | None = None,
) -> str:
    """The saga that does it to a volume whose row was read in this transaction, with the status that is shown
    meanwhile and `values` beside. The saga's id. Raises BadRequest where the status or another saga refuses it."""
    must_be_allowed(tx, verb, row, force=force)
    rule = LIFECYCLE[verb]
    new = dict(values or {})
    if rule.meanwhile is not None:
        new |= {"status": rule.meanwhile.value, "previous_status": row["status"]}
    if new:
        volumes.set_(tx, row["id"], **new)
    kind = Verb.RETYPE if verb is Verb.MIGRATE else verb
    return sagas.enqueue(
        tx,
        SagaKind(kind.value),
        of_volume(row["id"]),
        row["project_id"],
        {**params, "previous": row["status"]},
        request_id=asked.request_id,
        user_id=asked.user_id,
    )


def must_be_allowed(tx: Tx, verb: Verb, row: VolumeRow, *, force: bool = False) -> None:
    """Raises BadRequest with the sentence: by its status, or because a saga is at work on it."""
    if verb in lifecycle.OF_FREE_ONES and attachments.of_volume(tx, row["id"]) is not None:
        raise BadRequest(lifecycle.still_attached(row["id"]))
    must_be_allowed_now(verb, row, force=force)
    if row["moving_to"] is not None:
        raise BadRequest(lifecycle.busy(row["id"], "migration"))
    active = sagas.active_of(tx, of_volume(row["id"]))
    if active is not None and not (verb is Verb.DELETE and force):
        raise BadRequest(lifecycle.busy(row["id"], active["kind"]))


def must_be_allowed_now(verb: Verb, row: VolumeRow, *, force: bool = False) -> None:
    """For what a saga at work does not mind. Raises BadRequest."""
    sentence = lifecycle.refusal(verb, row["id"], row["status"], force=force)
    if sentence is not None:
        raise BadRequest(sentence)


def extend(tx: Tx, row: VolumeRow, size_gb: int, asked: Asked, configured: VolumeQuotas, type_name: str) -> str:
    """Make it larger. Raises BadRequest, TooLarge."""
    must_be_allowed(tx, Verb.EXTEND, row)
    if row["status"] == VolumeStatus.IN_USE:
        _must_be_promised(tx, row, "grows_in_use", "does not make a volume larger while it is in use: detach it first")
    if size_gb <= row["size_gb"]:
        raise BadRequest(
            f"Invalid input received: New size for extend must be greater than current size. (current: "
            f"{row['size_gb']}, extended: {size_gb})."
        )
    quota.check_size(quotas.limits(tx, row["project_id"], configured), size_gb)
    its_type = None if row["volume_type_id"] is None else (row["volume_type_id"], type_name)
    quotas.claim(tx, row["project_id"], configured, Claim(gigabytes=size_gb - row["size_gb"]), its_type)
    return begin(tx, Verb.EXTEND, row, {"size_gb": size_gb}, asked, values={"growing_to_gb": size_gb})


def retype(tx: Tx, row: VolumeRow, wanted: VolumeTypeRow, policy: str, asked: Asked, configured: VolumeQuotas) -> None:
    """`policy`: never, or on-demand: it may be moved for it. Raises BadRequest, TooLarge."""
    must_be_allowed(tx, Verb.RETYPE, row)
    its_type = (wanted["id"], wanted["name"])
    more = Claim(volumes=1, gigabytes=row["size_gb"])
    quotas.claim_of_type(tx, row["project_id"], configured, more, its_type)
    begin(tx, Verb.RETYPE, row, {"volume_type_id": wanted["id"], "backend": None, "policy": policy}, asked)


def _must_not_be_ending(tx: Tx, subject: Subject, kind: SagaKind) -> None:
    """Whatever its status was reset to: what waited behind its end would be about nothing. Raises BadRequest."""
    if sagas.waiting_or_active(tx, subject, kind) is not None:
        raise BadRequest(f"Invalid {subject.kind.value}: {subject.id} is being deleted already.")


def delete(tx: Tx, row: VolumeRow, asked: Asked, *, cascade: bool = False, force: bool = False) -> None:
    """Raises BadRequest while something hangs on it. One that never got a backend goes at once."""
    must_be_allowed(tx, Verb.DELETE, row, force=force)
    _must_not_be_ending(tx, of_volume(row["id"]), SagaKind.DELETE_VOLUME)
    if not cascade and volumes.has_snapshots(tx, row["id"]):
        raise BadRequest(
            f"Invalid volume: Volume {row['id']} must not have snapshots; delete them first, or delete it with them "
            "(cascade)."
        )
    if cascade:
        _must_have_no_clones(tx, row)
    if tx.execute(_MADE_OF_VOLUME, {"of": row["id"]}).first() is not None:
        raise BadRequest(f"Invalid volume: Volume {row['id']} is being copied: another volume is made of it now.")
    volumes.forget_transfer(tx, row["id"])
    begin(tx, Verb.DELETE, row, {"cascade": cascade, "force": force}, asked, force=force)


def _must_have_no_clones(tx: Tx, row: VolumeRow) -> None:
    """Where a snapshot does not go while a volume made of it is there. Raises BadRequest before anything is deleted."""
    if row["host"] is None or backends.guarantees_of(tx, row["host"]).independent_snapshots:
        return
    clones = list(tx.execute(_CLONES, {"of": row["id"], "at": row["host"]}).scalars())
    if clones:
        raise BadRequest(
            f"Invalid volume: Volume {row['id']} has snapshots of which volumes are made that hang on them: "
            f"{', '.join(clones)}; delete these first."
        )


# -- snapshots --------------------------------------------------------------------------------------------------------
class NewSnapshot(msgspec.Struct, frozen=True):
    user_id: str
    name: str | None = None
    description: str | None = None
    metadata: dict[str, str] = {}
    force: bool = False
    request_id: str = ""


def create_snapshot(
    tx: Tx, volume: VolumeRow, new: NewSnapshot, configured: VolumeQuotas, type_name: str
) -> SnapshotRow:
    """The row of a snapshot and the saga that makes it, which holds the volume. Raises BadRequest, TooLarge."""
    sentence = lifecycle.refusal(Verb.SNAPSHOT, volume["id"], volume["status"], force=new.force)
    if sentence is not None:
        raise BadRequest(sentence)
    if volume["host"] is None:
        raise BadRequest(
            "Invalid volume: The snapshot cannot be created because volume has not been scheduled to any host."
        )
    if volume["moving_to"] is not None:
        raise BadRequest("Invalid volume: Snapshot cannot be created while volume is migrating.")
    _must_be_promised(tx, volume, "snapshots", "takes no snapshots: make a volume of it, or back it up")
    _must_be_at_rest(tx, volume)
    its_type = None if volume["volume_type_id"] is None else (volume["volume_type_id"], type_name)
    quotas.claim(tx, volume["project_id"], configured, Claim(snapshots=1, gigabytes=volume["size_gb"]), its_type)
    row = SnapshotRow(
        id=tx.names.uuid(),
        project_id=volume["project_id"],
        user_id=new.user_id,
        name=new.name,
        description=new.description,
        created_at_us=tx.now_us,
        updated_at_us=None,
        volume_id=volume["id"],
        size_gb=volume["size_gb"],
        status=SnapshotStatus.CREATING.value,
        metadata=new.metadata,
        fault="",
        fence=0,
    )
    snapshots.insert_row(tx, row)
    sagas.enqueue(
        tx,
        SagaKind(Verb.SNAPSHOT.value),
        of_snapshot(row["id"]),
        row["project_id"],
        {"force": new.force},
        request_id=new.request_id,
        user_id=new.user_id,
        holds=(of_volume(volume["id"]),),
    )
    return row


def delete_snapshot(tx: Tx, row: SnapshotRow, asked: Asked, *, force: bool = False) -> None:
    """Raises BadRequest, Conflict."""
    sentence = lifecycle.snapshot_deletion_refusal(row["id"], row["status"], force=force)
    if sentence is not None:
        raise BadRequest(sentence)
    _must_not_be_ending(tx, of_snapshot(row["id"]), SagaKind.DELETE_SNAPSHOT)
    _must_not_be_ending(tx, of_volume(row["volume_id"]), SagaKind.DELETE_VOLUME)
    if tx.execute(_MADE_OF_SNAPSHOT, {"of": row["id"]}).first() is not None:
        raise Conflict(f"Snapshot {row['id']} is in use: a volume is made of it now; wait until that has ended.")
    snapshots.set_(tx, row["id"], status=SnapshotStatus.DELETING.value)
    sagas.enqueue(
        tx,
        SagaKind.DELETE_SNAPSHOT,
        of_snapshot(row["id"]),
        row["project_id"],
        {"previous": row["status"]},
        request_id=asked.request_id,
        user_id=asked.user_id,
        holds=(of_volume(row["volume_id"]),),
    )
