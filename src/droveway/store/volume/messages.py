"""Why something failed, told to who asked for it: rows that a project reads and that age out."""

from __future__ import annotations

from sqlalchemy import bindparam, delete, insert, select

from droveway.domain.faults import NotFound
from droveway.domain.model import Subject
from droveway.domain.volume.messages import RESOURCE_TYPES, Action, event_id
from droveway.store.engine import results
from droveway.store.engine.prepared import Prepared
from droveway.store.engine.transaction import Tx
from droveway.store.volume.rows import VolumeMessageRow
from droveway.store.volume.tables import volume_messages

KEPT_US = 30 * 24 * 3600 * 1_000_000
SENTENCE_MAX = 4096
_C = volume_messages.c
_INSERT = Prepared(insert(volume_messages))
_GET = Prepared(select(volume_messages).where(_C.id == bindparam("of")))
_DELETE = Prepared(delete(volume_messages).where(_C.id == bindparam("of")))


def say(tx: Tx, project_id: str, request_id: str, subject: Subject, action: Action, sentence: str) -> None:
    """Of a volume, a snapshot or a backup. It names no host and no path: a tenant reads it."""
    tx.execute(
        _INSERT,
        {
            "id": tx.names.uuid(),
            "project_id": project_id,
            "request_id": request_id,
            "resource_type": RESOURCE_TYPES[subject.kind],
            "resource_id": subject.id,
            "event_id": event_id(subject.kind, action),
            "level": "ERROR",
            "sentence": sentence[:SENTENCE_MAX],
            "created_at_us": tx.now_us,
            "expires_at_us": tx.now_us + KEPT_US,
        },
    )


def get(tx: Tx, message_id: str, project_id: str | None = None) -> VolumeMessageRow:
    row = results.first(VolumeMessageRow, tx.execute(_GET, {"of": message_id}))
    if row is None or project_id not in (None, row["project_id"]):
        raise NotFound(f"Message {message_id[:64]} could not be found.")
    return row


def remove(tx: Tx, message_id: str) -> None:
    tx.execute(_DELETE, {"of": message_id})


def forget_expired(tx: Tx, most: int) -> int:
    """Returns how many."""
    old = select(_C.id).where(_C.expires_at_us < tx.now_us).limit(most)
    return tx.execute(delete(volume_messages).where(_C.id.in_(old))).rowcount
