"""Quality of service: limits under a name, that types are given."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from sqlalchemy import delete, insert, select, update

from droveway.domain.faults import BadRequest, Conflict, NotFound
from droveway.store.engine import results
from droveway.store.engine.transaction import Tx
from droveway.store.volume.rows import VolumeQosRow
from droveway.store.volume.tables import volume_qos, volume_types

_C, _T = volume_qos.c, volume_types.c


def get(tx: Tx, qos_id: str) -> VolumeQosRow:
    row = results.first(VolumeQosRow, tx.execute(select(volume_qos).where(_C.id == qos_id)))
    if row is None:
        raise NotFound(f"No such QoS spec {qos_id[:64]}.")
    return row


def create(tx: Tx, name: str, consumer: str, specs: Mapping[str, str]) -> VolumeQosRow:
    if tx.execute(select(_C.id).where(_C.name == name)).first() is not None:
        raise Conflict(f"QoS Specs {name[:64]} already exists.")
    row = VolumeQosRow(
        id=tx.names.uuid(),
        name=name,
        consumer=consumer,
        specs=dict(specs),
        created_at_us=tx.now_us,
        updated_at_us=None,
    )
    tx.execute(insert(volume_qos), dict(row))
    return row


def change(tx: Tx, qos_id: str, consumer: str | None, specs: Mapping[str, str]) -> VolumeQosRow:
    """What is named gets that value; the rest stays."""
    row = get(tx, qos_id)
    values = {"specs": row["specs"] | dict(specs), "consumer": consumer or row["consumer"], "updated_at_us": tx.now_us}
    tx.execute(update(volume_qos).where(_C.id == qos_id).values(**values))
    return get(tx, qos_id)


def forget_keys(tx: Tx, qos_id: str, keys: Iterable[str]) -> None:
    row = get(tx, qos_id)
    missing = [key for key in keys if key not in row["specs"]]
    if missing:
        raise NotFound(f"QoS spec {qos_id} has no spec with key {missing[0][:64]}.")
    left = {key: value for key, value in row["specs"].items() if key not in set(keys)}
    tx.execute(update(volume_qos).where(_C.id == qos_id).values(specs=left, updated_at_us=tx.now_us))


def remove(tx: Tx, qos_id: str, *, force: bool) -> None:
    """Raises BadRequest while a type has it, unless forced: then none has it any more."""
    get(tx, qos_id)
    if not force and tx.execute(select(_T.id).where(_T.qos_id == qos_id).limit(1)).first() is not None:
        raise BadRequest(f"QoS Specs {qos_id} is still associated with entities.")
    disassociate_all(tx, qos_id)
    tx.execute(delete(volume_qos).where(_C.id == qos_id))


def associate(tx: Tx, qos_id: str, type_id: str) -> None:
    get(tx, qos_id)
    row = tx.execute(select(_T.qos_id, _T.name).where(_T.id == type_id)).first()
    if row is None:
        raise NotFound(f"Volume type {type_id[:64]} could not be found.")
    if row[0] not in (None, qos_id):
        raise BadRequest(f"Invalid volume type: Type {type_id} is already associated with another qos specs: {row[0]}.")
    tx.execute(update(volume_types).where(_T.id == type_id).values(qos_id=qos_id))


def disassociate(tx: Tx, qos_id: str, type_id: str) -> None:
    get(tx, qos_id)
    if tx.execute(select(_T.id).where(_T.id == type_id)).first() is None:
        raise NotFound(f"Volume type {type_id[:64]} could not be found.")
    tx.execute(update(volume_types).where(_T.id == type_id, _T.qos_id == qos_id).values(qos_id=None))


def disassociate_all(tx: Tx, qos_id: str) -> None:
    get(tx, qos_id)
    tx.execute(update(volume_types).where(_T.qos_id == qos_id).values(qos_id=None))
